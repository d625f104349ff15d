// What is the same to the bit, what is close, and what must not spread.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels::cuda {
namespace {

constexpr AttentionShape ShapeOf(DType type) { return {6, 2, 64, 16, type}; }
const float kScales[] = {0.4f, -0.3f, 0.0f, 0.2f, -0.6f, 0.5f};

AttentionCase::Result Compute(AttentionCase& attention, uint64_t seed = 1, int32_t spare = 0,
                              PrefillWith with = PrefillWith::kWarps) {
  return attention.Run(AttentionBackend{"emulated cuda",
                                        [=](const AttentionParams& params) {
                                          return RunEmulated(params, seed, spare, LaunchReal, with);
                                        },
                                        {}});
}

struct Kernels {
  const char* name;
  PrefillWith with;
  DType type;
};
class CudaAttentionBits : public testing::TestWithParam<Kernels> {
 protected:
  const PrefillWith with_ = GetParam().with;
  const AttentionShape shape_ = ShapeOf(GetParam().type);
};
INSTANTIATE_TEST_SUITE_P(
    Prefill, CudaAttentionBits,
    testing::Values(Kernels{"Warps", PrefillWith::kWarps, DType::kBFloat16},
                    Kernels{"WarpsFloat8", PrefillWith::kWarps, DType::kFloat8},
                    Kernels{"Warpgroups", PrefillWith::kWarpgroups, DType::kBFloat16}),
    [](const auto& info) { return info.param.name; });

TEST_P(CudaAttentionBits, AnySchedule) {
  const SequenceData a = MakeSequence(shape_, 700, 41);
  AttentionCase attention(shape_, {{&a, 699, 700}, {&a, 0, 70}, {&a, 511, 514}});
  attention.params().policy = {RowScaleKind::kSsmax, kScales};
  const AttentionCase::Result first = Compute(attention, 1, 0, with_);
  for (int seed = 2; seed < 25; ++seed) {
    const AttentionCase::Result again = Compute(attention, seed, 0, with_);
    for (int64_t row = 0; row < attention.rows(); ++row) {
      ASSERT_TRUE(SameBits(shape_, first, row, again, row))
          << "row " << row << " schedule " << seed;
    }
  }
}

TEST_P(CudaAttentionBits, AnyBatchAndAnyCapacity) {
  const SequenceData a = MakeSequence(shape_, 1100, 42), b = MakeSequence(shape_, 300, 43);
  const std::vector<Chunk> chunks = {
      {&a, 1099, 1100}, {&b, 0, 130}, {&a, 510, 515}, {&b, 200, 300}};
  AttentionCase together(shape_, chunks);
  const AttentionCase::Result all = Compute(together, 3, 5, with_);
  int64_t row = 0;
  for (const Chunk& chunk : chunks) {
    AttentionCase alone(shape_, {chunk});
    const AttentionCase::Result one = Compute(alone, 4, 0, with_);
    for (int64_t i = 0; i < alone.rows(); ++i, ++row) {
      EXPECT_TRUE(SameBits(shape_, all, row, one, i)) << "row " << row;
    }
  }
}

TEST(CudaAttentionClose, AnyChunking) {
  for (DType type : {DType::kBFloat16, DType::kFloat8}) {
    const AttentionShape shape = ShapeOf(type);
    // The last rows, computed as a prompt, as a short chunk of a long prefix (split), and by
    // decoding.
    const SequenceData a = MakeSequence(shape, 1300, 44);
    AttentionCase prompt(shape, {{&a, 1100, 1300}}), chunk(shape, {{&a, 1290, 1300}}),
        step(shape, {{&a, 1299, 1300}});
    const ReferenceResult expected = step.Reference();
    const auto last = [&](const AttentionCase::Result& all) {
      const size_t width = shape.num_heads * shape.head_dim;
      return AttentionCase::Result{{all.out.end() - static_cast<long>(width), all.out.end()},
                                   {all.stats.end() - shape.num_heads, all.stats.end()}};
    };
    for (AttentionCase* attention : {&prompt, &chunk, &step}) {
      ExpectNear(last(Compute(*attention)), expected, "last row", RoundedTolerance(type));
    }
  }
}

}  // namespace
}  // namespace acuity::kernels::cuda
