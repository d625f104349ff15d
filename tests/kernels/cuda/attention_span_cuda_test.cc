// kernels/cuda/attention_span.h against double precision: on the emulated machine with random
// schedules, or on a GPU.
#include "kernels/cuda/attention_span.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/kernels/attention_fixture.h"
#include "tests/kernels/attention_span_reference.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/device_attention.h"

namespace acuity::kernels::cuda {
namespace {

constexpr float kS[] = {0.4f, -0.2f, 0.17f, 0.9f, 0.3f, 0.1f};
constexpr float kB[] = {0.1f, 0.5f, -0.3f, 0, 0.2f, 1};
constexpr float kSinks[] = {0.5f, 2, -1, 3, 0, 1};

// The statistics that attention would have left, from the reference.
std::vector<RowStats> StatsOf(const AttentionCase& attention) {
  std::vector<RowStats> stats;
  for (const ReferenceStats& s : attention.Reference().stats) {
    stats.push_back({static_cast<float>(s.entropy), static_cast<float>(s.max_probability),
                     static_cast<float>(s.log_sum_exp)});
  }
  return stats;
}

// What the device makes of the watched rows, in the order of ListSpans; between paddings.
std::vector<uint64_t> Measure(const AttentionParams& params, const std::vector<WatchedRow>& watched,
                              uint64_t seed) {
  SpanList list;
  ListSpans(watched.data(), static_cast<int>(watched.size()), params.shape.num_heads, &list);
  list.spans.insert(list.spans.begin(), WatchedSpan{});
  list.spans.push_back(WatchedSpan{});
  const DeviceAttention device(params);
  DeviceArray<WatchedSpan> spans(list.spans);
  DeviceArray<uint64_t> mass(std::vector<uint64_t>(static_cast<size_t>(list.masses)));
  SetScheduleSeed(seed);
  const SpanMassParams p = {device.params(), spans.data(), static_cast<int32_t>(list.spans.size()),
                            list.longest, mass.data()};
  EXPECT_STREQ(SpanMass(p, nullptr), nullptr);
  EXPECT_STREQ(Finish(), nullptr);
  return mass.Read();
}

struct Policy {
  const char* name;
  void (*apply)(AttentionParams&);
};
const Policy kPolicies[] = {
    {"softmax", [](AttentionParams&) {}},
    {"ssmax, sinks",
     [](AttentionParams& p) {
       p.policy = {RowScaleKind::kSsmax, kS, kB};
       p.sinks = kSinks;
     }},
    {"window, softcap",
     [](AttentionParams& p) {
       p.window = 300;
       p.logit_softcap = 1.5f;
     }},
};

// Rows of three sequences in one batch: a decode step, a whole prompt and a chunk. Lengths cross
// pages and the pieces that a span is cut into.
void Compare(const AttentionShape& shape, const Policy& policy, uint64_t seed) {
  const SequenceData decode = MakeSequence(shape, 700, 1, 2),
                     prompt = MakeSequence(shape, 33, 2, 2), chunk = MakeSequence(shape, 60, 3, 2);
  const std::vector<Chunk> chunks = {{&decode, 699, 700}, {&prompt, 0, 33}, {&chunk, 50, 60}};
  AttentionCase attention(shape, chunks);
  policy.apply(attention.params());
  std::vector<RowStats> stats = StatsOf(attention);
  AttentionParams params = attention.params();
  params.stats = stats.data();

  // One key, across pieces, what the row does not see, everything.
  const std::vector<KeySpan> of_decode = {{0, 1}, {140, 700}, {699, 700}, {700, 710}, {0, 5000}};
  const std::vector<KeySpan> of_prompt = {{0, 33}}, of_chunk = {{3, 57}, {16, 40}};
  const std::vector<WatchedRow> watched = {{0, 0, of_decode.data(), 5},
                                           {1, 0, of_prompt.data(), 1},
                                           {1, 32, of_prompt.data(), 1},
                                           {2, 6, of_chunk.data(), 2}};
  const std::vector<uint64_t> mass = Measure(params, watched, seed);
  size_t at = 0;
  for (const WatchedRow& row : watched) {
    const SpanReference reference{params, *chunks[row.seq].sequence,
                                  chunks[row.seq].begin + row.row};
    for (int head = 0; head < shape.num_heads; ++head) {
      for (int32_t s = 0; s < row.num_spans; ++s, ++at) {
        EXPECT_NEAR(MassOf(mass.at(at)), reference.Mass(head, row.spans[s]), 3e-5)
            << policy.name << ", head_dim " << shape.head_dim << ", sequence " << row.seq
            << ", row " << row.row << ", head " << head << ", span " << s;
      }
    }
  }
  EXPECT_EQ(at, mass.size());
}

TEST(CudaAttentionSpan, MassesAreTheDefinitionsInDoublePrecision) {
  uint64_t seed = 20;
  for (const AttentionShape& shape :
       {AttentionShape{6, 2, 64, 16, DType::kBFloat16},
        AttentionShape{2, 2, 128, 32, DType::kFloat16},
        AttentionShape{2, 1, 256, 16, DType::kBFloat16},
        AttentionShape{6, 2, 64, 16, DType::kFloat8}, AttentionShape{2, 2, 128, 32, DType::kFloat8},
        AttentionShape{2, 1, 256, 16, DType::kFloat8}}) {
    for (const Policy& policy : kPolicies) Compare(shape, policy, ++seed);
  }
}

// One key has all the mass; spans of a whole row add up to one, whatever the schedule.
TEST(CudaAttentionSpan, PartsAddUpUnderAnySchedule) {
  const AttentionShape shape = {2, 1, 64, 16, DType::kFloat16};
  const SequenceData sequence = MakeSequence(shape, 1500, 4, 40);
  AttentionCase attention(shape, {{&sequence, 1499, 1500}});
  std::vector<RowStats> stats = StatsOf(attention);
  AttentionParams params = attention.params();
  params.stats = stats.data();
  const std::vector<KeySpan> spans = {{0, 17}, {17, 1400}, {1400, 1499}, {1499, 1500}};
  const std::vector<uint64_t> mass = Measure(params, {{0, 0, spans.data(), 4}}, 1);
  for (int head = 0; head < 2; ++head) {
    double sum = 0;
    for (int s = 0; s < 4; ++s) sum += MassOf(mass.at(4 * head + s));
    EXPECT_NEAR(sum, 1, 2e-5);
  }
  EXPECT_EQ(Measure(params, {{0, 0, spans.data(), 4}}, 2), mass);
}

class CudaAttentionSpanNan : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaAttentionSpanNan,
                         testing::Values(DType::kBFloat16, DType::kFloat8));

TEST_P(CudaAttentionSpanNan, IsSeenWhereItIsAndNowhereElse) {
  const AttentionShape shape = {1, 1, 64, 16, GetParam()};
  SequenceData sequence = MakeSequence(shape, 40, 5);
  sequence.q[39 * 64 + 3] = -1;  // a large number in the NaN's place has no mass
  AttentionCase sane(shape, {{&sequence, 39, 40}});
  std::vector<RowStats> stats = StatsOf(sane);
  sequence.k[20 * 64 + 3] = std::nanf("");
  AttentionCase attention(shape, {{&sequence, 39, 40}});
  AttentionParams params = attention.params();
  params.stats = stats.data();
  const std::vector<KeySpan> spans = {{0, 20}, {20, 21}, {21, 40}, {0, 40}};
  const std::vector<uint64_t> mass = Measure(params, {{0, 0, spans.data(), 4}}, 3);
  EXPECT_FALSE(std::isnan(MassOf(mass[0])));
  EXPECT_TRUE(std::isnan(MassOf(mass[1])));
  EXPECT_FALSE(std::isnan(MassOf(mass[2])));
  EXPECT_TRUE(std::isnan(MassOf(mass[3])));
  // Statistics of a row that NaN has spoilt: no mass can be told from them.
  stats[0].log_sum_exp = kMinusInfinity;
  EXPECT_TRUE(std::isnan(MassOf(Measure(params, {{0, 0, spans.data(), 4}}, 4)[0])));
}

TEST(CudaAttentionSpan, RefusesWhatItCannotDo) {
  RowStats stats;
  SpanMassParams p;
  p.attention.shape = {1, 1, 64, 16, DType::kBFloat16};
  p.attention.stats = &stats;
  const auto refused = [&] {
    const char* reason = SpanMass(p, nullptr);
    return std::string(reason == nullptr ? "" : reason);
  };
  EXPECT_EQ(refused(), "");
  p.longest = 33553921;
  EXPECT_EQ(refused(), "SpanMass: longest must be within 0 and 33553920");
  p.num_spans = -1;
  EXPECT_EQ(refused(), "SpanMass: num_spans must be at least 0");
  p.attention.stats = nullptr;
  EXPECT_EQ(refused(), "SpanMass: attention.stats must be given");
  p.attention.shape.kv_dtype = DType::kFloat32;
  EXPECT_EQ(refused(), "kv_dtype must be bfloat16, float16 or float8 on a GPU");
}

}  // namespace
}  // namespace acuity::kernels::cuda
