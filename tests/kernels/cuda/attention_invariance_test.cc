// What is the same to the bit, and what is close; and ways in which scaled attention has gone wrong
// elsewhere.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels::cuda {
namespace {

constexpr AttentionShape kShape = {6, 2, 64, 16, DType::kBFloat16};
const float kScales[] = {0.4f, -0.3f, 0.0f, 0.2f, -0.6f, 0.5f};

AttentionCase::Result Compute(AttentionCase& attention, uint64_t seed = 1, int32_t spare = 0) {
  return attention.Run(AttentionBackend{
      "emulated cuda",
      [=](const AttentionParams& params) { return RunEmulated(params, seed, spare); },
      {}});
}

bool SameRow(const AttentionCase::Result& a, int64_t row_a, const AttentionCase::Result& b,
             int64_t row_b) {
  return SameBits(kShape, a, row_a, b, row_b);
}

TEST(CudaAttentionBits, AnySchedule) {
  const SequenceData a = MakeSequence(kShape, 700, 41);
  AttentionCase attention(kShape, {{&a, 699, 700}, {&a, 0, 70}, {&a, 511, 514}});
  attention.params().policy = {RowScaleKind::kSsmax, kScales};
  const AttentionCase::Result first = Compute(attention);
  for (int seed = 2; seed < 25; ++seed) {
    const AttentionCase::Result again = Compute(attention, seed);
    for (int64_t row = 0; row < attention.rows(); ++row) {
      ASSERT_TRUE(SameRow(first, row, again, row)) << "row " << row << " schedule " << seed;
    }
  }
}

TEST(CudaAttentionBits, AnyBatchAndAnyCapacity) {
  const SequenceData a = MakeSequence(kShape, 1100, 42), b = MakeSequence(kShape, 300, 43);
  const std::vector<Chunk> chunks = {
      {&a, 1099, 1100}, {&b, 0, 130}, {&a, 510, 515}, {&b, 200, 300}};
  AttentionCase together(kShape, chunks);
  const AttentionCase::Result all = Compute(together, 3, 5);
  int64_t row = 0;
  for (const Chunk& chunk : chunks) {
    AttentionCase alone(kShape, {chunk});
    const AttentionCase::Result one = Compute(alone, 4);
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

// One head whose logits are given: q = (1, 0, ...), k = (logit, 0, ...), softmax_scale 1.
struct GivenLogits {
  static constexpr AttentionShape kShape = {1, 1, 64, 16, DType::kBFloat16};

  explicit GivenLogits(const std::vector<float>& logits) {
    const int n = static_cast<int>(logits.size());
    sequence = MakeSequence(kShape, n, 21);
    std::fill(sequence.q.begin(), sequence.q.end(), 0.0f);
    std::fill(sequence.k.begin(), sequence.k.end(), 0.0f);
    for (int i = 0; i < n; ++i) {
      sequence.q[i * 64] = 1;
      sequence.k[i * 64] = logits[i];
    }
  }
  AttentionCase Last() {
    AttentionCase attention(kShape, {{&sequence, sequence.length - 1, sequence.length}});
    attention.params().softmax_scale = 1;
    return attention;
  }
  SequenceData sequence;
};

AttentionCase::Result ExpectExact(AttentionCase& attention) {
  AttentionCase::Result result = Compute(attention);
  ExpectNear(result, attention.Reference(), "given logits", RoundedTolerance(DType::kBFloat16));
  return result;
}

TEST(CudaAttentionTraps, DecodeScaleUsesTheAbsolutePosition) {
  // p_max = n^s / (n^s + n - 1), which only n = 8193 gives.
  std::vector<float> logits(8193, 0.0f);
  logits[0] = 1;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const float s = 1.0f;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  EXPECT_NEAR(ExpectExact(attention).stats[0].max_probability, 8193.0 / (8193.0 + 8192.0), 1e-5);
}

TEST(CudaAttentionTraps, NegativeScaleTakesTheMaximumOfScaledLogits) {
  std::vector<float> logits(300, 40.0f);
  logits[7] = -40;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const float s = -1.0f;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  EXPECT_FLOAT_EQ(ExpectExact(attention).stats[0].max_probability, 1.0f);
}

TEST(CudaAttentionTraps, ZeroScaleIsUniformOverTheVisibleKeysOnly) {
  for (int rows : {5, 30}) {  // by decoding, by prefill
    std::vector<float> logits(rows, 3.0f);
    logits.back() = 1e9f;
    GivenLogits given(logits);
    AttentionCase attention(GivenLogits::kShape, {{&given.sequence, 0, rows}});
    const float s = 0;
    attention.params().policy = {RowScaleKind::kSsmax, &s};
    const AttentionCase::Result result = ExpectExact(attention);
    for (int row = 0; row < rows; ++row) {
      EXPECT_NEAR(result.stats[row].entropy, std::log(row + 1.0), 1e-5);
    }
  }
}

TEST(CudaAttentionTraps, OneKeyBesideASinkHasLogitZero) {
  GivenLogits given({50});
  AttentionCase attention = given.Last();
  const float s = 0.5f, sink = std::log(3.0f);
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  attention.params().sinks = &sink;
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.out[0], given.sequence.v[0] / 4, 1e-3);
  EXPECT_EQ(result.stats[0].max_probability, 1.0f);
  EXPECT_EQ(result.stats[0].entropy, 0.0f);
}

TEST(CudaAttentionTraps, SinkFarAboveOrBelowEveryLogit) {
  for (float sink : {500.0f, -500.0f}) {
    GivenLogits given({1, 2, 3});
    AttentionCase attention = given.Last();
    attention.params().sinks = &sink;
    ExpectExact(attention);
  }
}

TEST(CudaAttentionTraps, VeryNegativeLogits) {
  std::vector<float> logits(200, -5120.0f);
  logits[150] = -5088;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  EXPECT_FLOAT_EQ(ExpectExact(attention).stats[0].max_probability, 1.0f);
}

TEST(CudaAttentionTraps, RisingLogitsNeedTheMovedMaximumInTheEntropy) {
  std::vector<float> logits(1500);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i / 32) * 0.125f;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  EXPECT_GT(ExpectExact(attention).stats[0].entropy, 4.0f);
}

TEST(CudaAttentionTraps, RowsThatSeeNothingOfASplit) {
  // Rows 510..514 by decoding: the first two see nothing of the second split; under a window of 2
  // the last sees nothing of the first.
  const SequenceData a = MakeSequence(kShape, 520, 45);
  for (int window : {0, 2}) {
    AttentionCase attention(kShape, {{&a, 510, 515}});
    attention.params().window = window;
    ExpectNear(Compute(attention), attention.Reference(), "two splits",
               RoundedTolerance(kShape.kv_dtype));
  }
}

TEST(CudaAttentionTraps, ANanStaysInItsRows) {
  SequenceData a = MakeSequence(kShape, 100, 46);
  a.q[50 * 6 * 64] = std::nanf("");  // head 0 of row 50
  AttentionCase attention(kShape, {{&a, 0, 100}});
  const AttentionCase::Result result = Compute(attention);
  for (int i = 0; i < 600; ++i) EXPECT_EQ(std::isnan(result.out[i * 64]), i == 300) << i;
}

}  // namespace
}  // namespace acuity::kernels::cuda
