// What only the CPU's kernels can do, or cannot.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/cpu/attention_tiles.h"
#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels {
namespace {

// A group of more heads than a row tile packs.
TEST(AttentionCpu, GroupLargerThanATile) {
  const AttentionShape shape = {kPackedRows + 4, 1, 32, 16, DType::kFloat32};
  const SequenceData a = MakeSequence(shape, 130, 4);
  AttentionCase attention(shape, {{&a, 0, 3}, {&a, 127, 130}});
  const ReferenceResult expected = attention.Reference();
  for (const NamedKernels& kernels : AllKernels()) {
    ExpectNear(attention.Run(*kernels.kernels), expected, kernels.name);
  }
}

TEST(AttentionCpu, UnsupportedShapesAreNamed) {
  const AttentionShape good = {6, 2, 64, 16, DType::kFloat32};
  EXPECT_EQ(Supports(good), nullptr);
  const auto with = [&](auto change) {
    AttentionShape shape = good;
    change(shape);
    const char* reason = Supports(shape);
    return std::string(reason == nullptr ? "" : reason);
  };
  EXPECT_NE(with([](AttentionShape& s) { s.num_kv_heads = 4; }).find("num_kv_heads"),
            std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.num_kv_heads = 0; }).find("num_kv_heads"),
            std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.head_dim = 72; }).find("head_dim"), std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.head_dim = 272; }).find("head_dim"), std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.head_dim = 0; }).find("head_dim"), std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.block_size = 24; }).find("block_size"),
            std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.block_size = 0; }).find("block_size"),
            std::string::npos);
  EXPECT_NE(with([](AttentionShape& s) { s.kv_dtype = DType::kFloat16; }).find("kv_dtype"),
            std::string::npos);
  EXPECT_EQ(with([](AttentionShape& s) { s.kv_dtype = DType::kFloat8; }), "");
}

// On the CPU only: an emulated GPU takes too long for so many keys.
class LongContext : public testing::TestWithParam<float> {};

TEST_P(LongContext, EntropyWithinATenThousandthOfANat) {
  // n = 131,072, logits N(0, 4) plus an offset carried by a second dimension.
  constexpr int kKeys = 131072;
  const AttentionShape shape = {1, 1, 16, 16, DType::kFloat32};
  SequenceData a = MakeSequence(shape, kKeys, 24);
  for (int i = 0; i < kKeys; ++i) {
    for (int d = 1; d < 16; ++d) a.k[i * 16 + d] = d == 1 ? 1.0f : 0.0f;
  }
  float* q = &a.q[(kKeys - 1) * 16];
  q[0] = 2;  // standard deviation: a variance of 4
  q[1] = GetParam();
  AttentionCase attention(shape, {{&a, kKeys - 1, kKeys}});
  attention.params().softmax_scale = 1;
  const ReferenceResult expected = attention.Reference();
  for (const NamedKernels& kernels : AllKernels()) {
    const AttentionCase::Result result = attention.Run(*kernels.kernels, 2);
    EXPECT_NEAR(result.stats[0].entropy, expected.stats[0].entropy, 1e-4) << kernels.name;
    ExpectNear(result, expected, kernels.name);
  }
  q[0] = 4;  // and of 16
  AttentionCase steeper(shape, {{&a, kKeys - 1, kKeys}});
  steeper.params().softmax_scale = 1;
  const double entropy = steeper.Reference().stats[0].entropy;
  EXPECT_NEAR(steeper.Run(BestKernels()).stats[0].entropy, entropy, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Offsets, LongContext, testing::Values(0.0f, 1000.0f, -1000.0f));

}  // namespace
}  // namespace acuity::kernels
