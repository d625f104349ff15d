// What only the CPU's kernels can do, or cannot.
#include <gtest/gtest.h>

#include <string>

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
}

}  // namespace
}  // namespace acuity::kernels
