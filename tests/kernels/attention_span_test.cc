#include "kernels/attention_span.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/kernels/attention_fixture.h"
#include "tests/kernels/attention_span_reference.h"

namespace acuity::kernels {
namespace {

constexpr float kS[] = {0.4f, -0.2f, 0.17f, 0.9f, 0.3f, 0.1f};
constexpr float kB[] = {0.1f, 0.5f, -0.3f, 0, 0.2f, 1};
constexpr float kSinks[] = {0.5f, 2, -1, 3, 0, 1};

struct Variant {
  const char* name;
  void (*apply)(AttentionParams&);
};
const Variant kVariants[] = {
    {"softmax", [](AttentionParams&) {}},
    {"ssmax",
     [](AttentionParams& p) {
       p.policy = {RowScaleKind::kSsmax, kS, kB};
     }},
    {"window", [](AttentionParams& p) { p.window = 40; }},
    {"softcap", [](AttentionParams& p) { p.logit_softcap = 1.5f; }},
    {"sinks", [](AttentionParams& p) { p.sinks = kSinks; }},
    {"all",
     [](AttentionParams& p) {
       p.policy = {RowScaleKind::kSsmax, kS};
       p.window = 300;
       p.logit_softcap = 4;
       p.sinks = kSinks;
     }},
};

// Rows of three sequences in one batch: a decode step, a whole prompt and a chunk. Lengths cross
// pages, key tiles and splits.
void Compare(const AttentionShape& shape, const Variant& variant) {
  const SequenceData decode = MakeSequence(shape, 700, 1, 2),
                     prompt = MakeSequence(shape, 33, 2, 2), chunk = MakeSequence(shape, 300, 3, 2);
  const std::vector<Chunk> chunks = {{&decode, 699, 700}, {&prompt, 0, 33}, {&chunk, 130, 300}};
  AttentionCase attention(shape, chunks);
  variant.apply(attention.params());
  AttentionCase::Result result = attention.Run(BestKernels(), 2);
  AttentionParams params = attention.params();
  params.stats = result.stats.data();

  struct Watch {
    int seq, row;
  };
  for (const Watch& watch : {Watch{0, 0}, Watch{1, 0}, Watch{1, 32}, Watch{2, 0}, Watch{2, 169}}) {
    const int position = chunks[watch.seq].begin + watch.row;
    const int end = position + 1;
    // One key, across pages, what the row does not see, everything.
    const std::vector<KeySpan> spans = {
        {0, 1},   {end / 2, end / 2 + 1}, {end / 3, end}, {position, end}, {end, end + 10},
        {0, end}, {0, 1 << 20},           {5, end / 2}};
    std::vector<float> mass(shape.num_heads * spans.size(), -1);
    SpanMass(params, {watch.seq, watch.row, spans.data(), static_cast<int32_t>(spans.size())},
             mass.data(), {});
    const SpanReference reference{params, *chunks[watch.seq].sequence, position};
    for (int head = 0; head < shape.num_heads; ++head) {
      for (size_t s = 0; s < spans.size(); ++s) {
        EXPECT_NEAR(mass[head * spans.size() + s], reference.Mass(head, spans[s]), 1e-4)
            << variant.name << ", sequence " << watch.seq << ", row " << watch.row << ", head "
            << head << ", span [" << spans[s].begin << ", " << spans[s].end << ")";
      }
    }
  }
}

TEST(AttentionSpanTest, MassesAreTheDefinitionsInDoublePrecision) {
  for (const AttentionShape& shape : {AttentionShape{6, 6, 16, 16, DType::kFloat32},
                                      AttentionShape{6, 2, 64, 16, DType::kBFloat16},
                                      AttentionShape{6, 1, 48, 1, DType::kFloat32},
                                      AttentionShape{2, 1, 256, 32, DType::kBFloat16},
                                      AttentionShape{6, 2, 80, 16, DType::kFloat8}}) {
    for (const Variant& variant : kVariants) Compare(shape, variant);
  }
}

// Spans of a whole row add up to one, also where one key has all the mass.
TEST(AttentionSpanTest, PartsAddUp) {
  const AttentionShape shape = {2, 1, 16, 16, DType::kFloat32};
  const SequenceData sequence = MakeSequence(shape, 5000, 4, 40);
  AttentionCase attention(shape, {{&sequence, 4999, 5000}});
  AttentionCase::Result result = attention.Run(BestKernels());
  AttentionParams params = attention.params();
  params.stats = result.stats.data();
  const std::vector<KeySpan> spans = {{0, 17}, {17, 2048}, {2048, 4999}, {4999, 5000}};
  std::vector<float> mass(2 * spans.size());
  SpanMass(params, {0, 0, spans.data(), 4}, mass.data(), {});
  for (int head = 0; head < 2; ++head) {
    EXPECT_NEAR(mass[4 * head] + mass[4 * head + 1] + mass[4 * head + 2] + mass[4 * head + 3], 1,
                2e-5);
  }
}

}  // namespace
}  // namespace acuity::kernels
