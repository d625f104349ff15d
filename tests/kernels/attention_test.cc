// Every implementation against double precision, over shapes, policies, masks and page sizes. One
// source for all machines: which one, attention_matrix.h says to each binary.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/attention_matrix.h"

namespace acuity::kernels {
namespace {

constexpr int kKvHeads = 2;
constexpr int kMaxGroup = 8;

enum class Feature {
  kSoftmax,
  kSsmax,
  kSsmaxBias,
  kLogN,
  kLlama4,
  kMinistral,
  kSharpen,
  kWindow,
  kNarrowWindow,
  kSoftcap,
  kSinks,
  kEverything,
};
constexpr const char* kFeatureNames[] = {"softmax",       "ssmax",     "ssmax_bias", "logn",
                                         "llama4",        "ministral", "sharpen",    "window",
                                         "narrow_window", "softcap",   "sinks",      "everything"};
constexpr Feature kFeatures[] = {Feature::kSoftmax, Feature::kSsmax,  Feature::kSsmaxBias,
                                 Feature::kLogN,    Feature::kLlama4, Feature::kMinistral,
                                 Feature::kSharpen, Feature::kWindow, Feature::kNarrowWindow,
                                 Feature::kSoftcap, Feature::kSinks,  Feature::kEverything};

// Scales of either sign, zero included; one per head.
struct HeadValues {
  float s[kKvHeads * kMaxGroup], b[kKvHeads * kMaxGroup], sinks[kKvHeads * kMaxGroup];
  HeadValues() {
    for (int h = 0; h < kKvHeads * kMaxGroup; ++h) {
      s[h] = h == 1 ? 0.0f : 0.45f - 0.11f * static_cast<float>(h);
      b[h] = 0.2f * static_cast<float>(h % 5) - 0.4f;
      sinks[h] = static_cast<float>(h % 7) * 2.5f - 6.0f;
    }
  }
};

void Apply(Feature feature, const HeadValues& heads, AttentionParams* params) {
  const bool all = feature == Feature::kEverything;
  if (feature == Feature::kSsmax) params->policy = {RowScaleKind::kSsmax, heads.s};
  if (feature == Feature::kSsmaxBias || all) {
    params->policy = {RowScaleKind::kSsmax, heads.s, heads.b};
  }
  if (feature == Feature::kLogN) {
    params->policy = {RowScaleKind::kLogN, nullptr, nullptr, 40};
  }
  if (feature == Feature::kLlama4) {
    params->policy = {RowScaleKind::kLlama4, nullptr, nullptr, 64, 0.3f};
  }
  if (feature == Feature::kMinistral) {
    params->policy = {RowScaleKind::kMinistral, nullptr, nullptr, 64, 0.3f};
  }
  if (feature == Feature::kSharpen) {
    params->policy = {RowScaleKind::kSharpen, heads.s, heads.b, 50};
  }
  if (feature == Feature::kWindow || all) params->window = 70;
  if (feature == Feature::kNarrowWindow) params->window = 3;
  if ((feature == Feature::kSoftcap || all) && Matrix().softcap) params->logit_softcap = 2.5f;
  if (feature == Feature::kSinks || all) params->sinks = heads.sinks;
}

using Param = std::tuple<DType, int, int, int, Feature>;  // dtype, head_dim, group, block, feature

std::string Name(const testing::TestParamInfo<Param>& info) {
  const auto& [dtype, dim, group, block, feature] = info.param;
  constexpr const char* kTypes[] = {"f32", "bf16", "f16", "f8"};
  return std::string(kTypes[static_cast<int>(dtype)]) + "_d" + std::to_string(dim) + "_g" +
         std::to_string(group) + "_page" + std::to_string(block) + "_" +
         kFeatureNames[static_cast<int>(feature)];
}

class AttentionGrid : public testing::TestWithParam<Param> {};

TEST_P(AttentionGrid, AgreesWithDoublePrecision) {
  const auto& [dtype, dim, group, block, feature] = GetParam();
  const AttentionShape shape = {kKvHeads * group, kKvHeads, dim, block, dtype};
  const SequenceData a = MakeSequence(shape, 600, 1), b = MakeSequence(shape, 1030, 2);
  const HeadValues heads;
  AttentionCase attention(shape, {{&a, 0, 1},
                                  {&b, 0, 2},
                                  {&a, 0, 15},
                                  {&a, 14, 16},
                                  {&b, 0, 17},
                                  {&a, 62, 63},
                                  {&a, 63, 64},
                                  {&b, 30, 65},
                                  {&a, 510, 511},
                                  {&b, 511, 513},
                                  {&b, 600, 600},  // no new rows
                                  {&b, 999, 1000},
                                  {&b, 1020, 1030}});
  Apply(feature, heads, &attention.params());
  const ReferenceResult expected = attention.Reference();
  for (const AttentionBackend& backend : Backends()) {
    ExpectNear(attention.Run(backend), expected, backend.name,
               backend.tolerance(attention.params().shape.kv_dtype));
  }
}

INSTANTIATE_TEST_SUITE_P(Features, AttentionGrid,
                         testing::Combine(testing::ValuesIn(Matrix().dtypes),
                                          testing::ValuesIn(Matrix().head_dims),
                                          testing::ValuesIn(Matrix().groups), testing::Values(16),
                                          testing::ValuesIn(kFeatures)),
                         Name);
INSTANTIATE_TEST_SUITE_P(Pages, AttentionGrid,
                         testing::Combine(testing::ValuesIn(Matrix().dtypes),
                                          testing::Values(64, 128), testing::Values(3),
                                          testing::ValuesIn(Matrix().pages),
                                          testing::Values(Feature::kSoftmax, Feature::kEverything)),
                         Name);
INSTANTIATE_TEST_SUITE_P(HeadDims, AttentionGrid,
                         testing::Combine(testing::ValuesIn(Matrix().dtypes),
                                          testing::ValuesIn(Matrix().other_head_dims),
                                          testing::Values(2), testing::Values(16),
                                          testing::Values(Feature::kSsmax, Feature::kEverything)),
                         Name);

class AttentionPrefill : public testing::TestWithParam<Param> {};

TEST_P(AttentionPrefill, AgreesWithDoublePrecision) {
  const auto& [dtype, dim, group, block, feature] = GetParam();
  const AttentionShape shape = {group, 1, dim, block, dtype};
  const SequenceData a = MakeSequence(shape, 300, 3);
  const HeadValues heads;
  AttentionCase attention(shape, {{&a, 0, 300}, {&a, 100, 177}});
  Apply(feature, heads, &attention.params());
  const ReferenceResult expected = attention.Reference();
  for (const AttentionBackend& backend : Backends()) {
    ExpectNear(attention.Run(backend), expected, backend.name,
               backend.tolerance(attention.params().shape.kv_dtype));
  }
}

INSTANTIATE_TEST_SUITE_P(Features, AttentionPrefill,
                         testing::Combine(testing::ValuesIn(Matrix().dtypes),
                                          testing::Values(Matrix().head_dims[0],
                                                          Matrix().head_dims[1]),
                                          testing::Values(1, 3, 5, 8), testing::Values(16),
                                          testing::Values(Feature::kSoftmax, Feature::kSsmaxBias,
                                                          Feature::kWindow, Feature::kEverything)),
                         Name);

TEST(Attention, WithoutStatisticsTheSameOutput) {
  const AttentionShape shape = {6, 2, 64, 16, DType::kBFloat16};
  const SequenceData a = MakeSequence(shape, 700, 5);
  AttentionCase attention(shape, {{&a, 0, 150}, {&a, 699, 700}});
  for (const AttentionBackend& backend : Backends()) {
    EXPECT_EQ(attention.Run(backend, true).out, attention.Run(backend, false).out) << backend.name;
  }
}

TEST(Attention, EmptyBatch) {
  const AttentionShape shape = {6, 2, 64, 16, DType::kBFloat16};
  AttentionCase attention(shape, {});
  for (const AttentionBackend& backend : Backends()) {
    EXPECT_TRUE(attention.Run(backend).out.empty()) << backend.name;
  }
}

}  // namespace
}  // namespace acuity::kernels
