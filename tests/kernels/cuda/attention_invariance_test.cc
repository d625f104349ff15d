// What is the same to the bit, what is close, and what must not spread.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels::cuda {
namespace {

constexpr AttentionShape kShape = {6, 2, 64, 16, DType::kBFloat16};
const float kScales[] = {0.4f, -0.3f, 0.0f, 0.2f, -0.6f, 0.5f};

AttentionCase::Result Compute(AttentionCase& attention, uint64_t seed = 1, int32_t spare = 0,
                              PrefillWith with = PrefillWith::kWarps) {
  return attention.Run(AttentionBackend{"emulated cuda",
                                        [=](const AttentionParams& params) {
                                          return RunEmulated(params, seed, spare, LaunchReal, with);
                                        },
                                        {}});
}

bool SameRow(const AttentionCase::Result& a, int64_t row_a, const AttentionCase::Result& b,
             int64_t row_b) {
  return SameBits(kShape, a, row_a, b, row_b);
}

class CudaAttentionBits : public testing::TestWithParam<PrefillWith> {};
INSTANTIATE_TEST_SUITE_P(Prefill, CudaAttentionBits,
                         testing::Values(PrefillWith::kWarps, PrefillWith::kWarpgroups),
                         [](const auto& info) {
                           return info.param == PrefillWith::kWarps ? "Warps" : "Warpgroups";
                         });

TEST_P(CudaAttentionBits, AnySchedule) {
  const SequenceData a = MakeSequence(kShape, 700, 41);
  AttentionCase attention(kShape, {{&a, 699, 700}, {&a, 0, 70}, {&a, 511, 514}});
  attention.params().policy = {RowScaleKind::kSsmax, kScales};
  const AttentionCase::Result first = Compute(attention, 1, 0, GetParam());
  for (int seed = 2; seed < 25; ++seed) {
    const AttentionCase::Result again = Compute(attention, seed, 0, GetParam());
    for (int64_t row = 0; row < attention.rows(); ++row) {
      ASSERT_TRUE(SameRow(first, row, again, row)) << "row " << row << " schedule " << seed;
    }
  }
}

TEST_P(CudaAttentionBits, AnyBatchAndAnyCapacity) {
  const SequenceData a = MakeSequence(kShape, 1100, 42), b = MakeSequence(kShape, 300, 43);
  const std::vector<Chunk> chunks = {
      {&a, 1099, 1100}, {&b, 0, 130}, {&a, 510, 515}, {&b, 200, 300}};
  AttentionCase together(kShape, chunks);
  const AttentionCase::Result all = Compute(together, 3, 5, GetParam());
  int64_t row = 0;
  for (const Chunk& chunk : chunks) {
    AttentionCase alone(kShape, {chunk});
    const AttentionCase::Result one = Compute(alone, 4, 0, GetParam());
    for (int64_t i = 0; i < alone.rows(); ++i, ++row) {
      EXPECT_TRUE(SameRow(all, row, one, i)) << "row " << row;
    }
  }
}

TEST(CudaAttentionClose, AnyChunking) {
  // The last rows, computed as a prompt, as a short chunk of a long prefix (split), and by
  // decoding.
  const SequenceData a = MakeSequence(kShape, 1300, 44);
  AttentionCase prompt(kShape, {{&a, 1100, 1300}}), chunk(kShape, {{&a, 1290, 1300}}),
      step(kShape, {{&a, 1299, 1300}});
  const ReferenceResult expected = step.Reference();
  const auto last = [&](const AttentionCase::Result& all) {
    const size_t width = kShape.num_heads * kShape.head_dim;
    return AttentionCase::Result{{all.out.end() - static_cast<long>(width), all.out.end()},
                                 {all.stats.end() - kShape.num_heads, all.stats.end()}};
  };
  for (AttentionCase* attention : {&prompt, &chunk, &step}) {
    ExpectNear(last(Compute(*attention)), expected, "last row", RoundedTolerance(kShape.kv_dtype));
  }
}

}  // namespace
}  // namespace acuity::kernels::cuda
