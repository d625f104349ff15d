// Ways in which scaled attention and its statistics have gone wrong elsewhere, one test each.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels {
namespace {

// One head whose logits are given: head_dim 16, q = (1, 0, ...), k = (logit, 0, ...).
struct GivenLogits {
  static constexpr AttentionShape kShape = {1, 1, 16, 16, DType::kFloat32};

  explicit GivenLogits(const std::vector<float>& logits) {
    const int n = static_cast<int>(logits.size());
    sequence = MakeSequence(kShape, n, 21);
    for (int i = 0; i < n; ++i) {
      for (int d = 0; d < 16; ++d) {
        sequence.q[i * 16 + d] = d == 0 ? 1.0f : 0.0f;
        sequence.k[i * 16 + d] = d == 0 ? logits[i] : 0.0f;
      }
    }
  }
  // The last row alone, softmax_scale 1.
  AttentionCase Last() {
    AttentionCase attention(kShape, {{&sequence, sequence.length - 1, sequence.length}});
    attention.params().softmax_scale = 1;
    return attention;
  }
  SequenceData sequence;
};

class AttentionTraps : public testing::TestWithParam<std::string> {
 protected:
  const AttentionKernels& kernels() {
    for (const NamedKernels& kernels : AllKernels()) {
      if (kernels.name == GetParam()) return *kernels.kernels;
    }
    return BestKernels();
  }
  AttentionCase::Result ExpectExact(AttentionCase& attention) {
    AttentionCase::Result result = attention.Run(kernels());
    ExpectNear(result, attention.Reference(), GetParam());
    return result;
  }
};

std::vector<std::string> KernelNames() {
  std::vector<std::string> names;
  for (const NamedKernels& kernels : AllKernels()) names.push_back(kernels.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(All, AttentionTraps, testing::ValuesIn(KernelNames()),
                         [](const auto& info) { return info.param; });

TEST_P(AttentionTraps, DecodeScaleUsesTheAbsolutePositionAfterAnEightThousandTokenPrompt) {
  // Alone, key 0 has logit 1 and the others 0: p_max = n^s / (n^s + n - 1), which only n = 8193
  // gives.
  std::vector<float> logits(8193, 0.0f);
  logits[0] = 1;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const float s = 1.0f;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.stats[0].max_probability, 8193.0 / (8193.0 + 8192.0), 1e-5);
}

TEST_P(AttentionTraps, NegativeScaleTakesTheMaximumOfScaledLogits) {
  std::vector<float> logits(300, 40.0f);
  logits[7] = -40;  // the greatest once s is negative
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const float s = -1.0f;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_FLOAT_EQ(result.stats[0].max_probability, 1.0f);
}

TEST_P(AttentionTraps, ZeroScaleIsUniformOverTheVisibleKeysOnly) {
  GivenLogits given({3, -7, 100, 5, 1e9f});
  AttentionCase attention(GivenLogits::kShape, {{&given.sequence, 0, 5}});
  const float s = 0;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  const AttentionCase::Result result = ExpectExact(attention);
  for (int row = 0; row < 5; ++row) {
    EXPECT_NEAR(result.stats[row].entropy, std::log(row + 1.0), 1e-6);
    EXPECT_NEAR(result.stats[row].max_probability, 1.0 / (row + 1), 1e-6);
  }
}

TEST_P(AttentionTraps, OneKeyBesideASinkHasLogitZero) {
  // n = 1: the multiplier is 0, so the key has logit 0 however large q.k is.
  GivenLogits given({50});
  AttentionCase attention = given.Last();
  const float s = 0.5f, sink = std::log(3.0f);
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  attention.params().sinks = &sink;
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.out[0], given.sequence.v[0] / 4, 1e-6);
  EXPECT_EQ(result.stats[0].max_probability, 1.0f);
  EXPECT_EQ(result.stats[0].entropy, 0.0f);
  EXPECT_EQ(result.stats[0].log_sum_exp, 0.0f);
}

TEST_P(AttentionTraps, SinkFarAboveOrBelowEveryLogit) {
  for (float sink : {500.0f, -500.0f}) {
    GivenLogits given({1, 2, 3});
    AttentionCase attention = given.Last();
    attention.params().sinks = &sink;
    ExpectExact(attention);
  }
}

TEST_P(AttentionTraps, FirstTileOfVeryNegativeLogits) {
  std::vector<float> logits(200, -5000.0f);
  logits[150] = -4999;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_GT(result.stats[0].max_probability, 0.01f);
}

TEST_P(AttentionTraps, LazilyMaskedTilesHoldWhateverWasThereBefore) {
  // Rows whose first tiles lie wholly before their window, in one task with rows that do see them.
  const AttentionShape shape = {1, 1, 64, 16, DType::kFloat32};
  const SequenceData a = MakeSequence(shape, 400, 22, 3);
  AttentionCase attention(shape, {{&a, 300, 390}});
  attention.params().window = 65;
  ExpectExact(attention);
}

TEST_P(AttentionTraps, SoftcapComesBeforeTheMask) {
  // After the mask, a masked key would count with exp(-cap) instead of nothing.
  std::vector<float> logits(70, 0.0f);
  GivenLogits given(logits);
  AttentionCase attention(GivenLogits::kShape, {{&given.sequence, 0, 70}});
  attention.params().logit_softcap = 1;
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.stats[9].max_probability, 0.1, 1e-6);
}

TEST_P(AttentionTraps, SoftcapComesAfterTheRowScale) {
  std::vector<float> logits(100, 0.0f);
  logits[3] = 1000;
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const float s = 1;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  attention.params().logit_softcap = 2;
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.stats[0].max_probability, std::exp(2.0) / (std::exp(2.0) + 99), 1e-6);
}

TEST_P(AttentionTraps, RisingLogitsNeedTheMovedMaximumInTheEntropy) {
  // The maximum moves in every tile and split; without the D l term the entropy is off by whole
  // nats.
  std::vector<float> logits(1500);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.004f * static_cast<float>(i);
  GivenLogits given(logits);
  AttentionCase attention = given.Last();
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_GT(result.stats[0].entropy, 5.0f);
}

TEST_P(AttentionTraps, OracleIdentity) {
  // E_p[z] = c q . (sum_j p_j k_j): with V = K the output gives the mean logit, and H = lse -
  // E_p[z].
  const AttentionShape shape = {2, 1, 64, 16, DType::kFloat32};
  SequenceData a = MakeSequence(shape, 777, 23, 2);
  a.v = a.k;
  AttentionCase attention(shape, {{&a, 776, 777}});
  const float s[] = {0.3f, -0.2f};
  attention.params().policy = {RowScaleKind::kSsmax, s};
  const AttentionCase::Result result = attention.Run(kernels());
  for (int head = 0; head < 2; ++head) {
    double mean = 0;
    for (int d = 0; d < 64; ++d) {
      mean += double{a.q[(776 * 2 + head) * 64 + d]} * result.out[head * 64 + d];
    }
    mean *= s[head] * std::log(777.0) * attention.params().softmax_scale;
    EXPECT_NEAR(result.stats[head].entropy, result.stats[head].log_sum_exp - mean, 1e-4);
  }
}

TEST_P(AttentionTraps, MaximumProbabilityTableOfThePaper) {
  // All z = -2, the last +3; s = 0.43.
  struct Row {
    int n;
    double softmax, ssmax;                // as printed
    double softmax_digits, ssmax_digits;  // half a unit of the last digit
  };
  const float s = 0.43f;
  for (const Row& row :
       {Row{10, 0.9428, 0.9401, 5e-5, 5e-5}, Row{100, 0.5999, 0.9951, 5e-5, 5e-5},
        Row{1000, 0.1293, 0.99965, 5e-5, 5e-6}, Row{10000, 0.01463, 0.99997, 5e-6, 5e-6}}) {
    std::vector<float> logits(row.n, -2.0f);
    logits.back() = 3;
    GivenLogits given(logits);
    AttentionCase attention = given.Last();
    const double softmax = ExpectExact(attention).stats[0].max_probability;
    EXPECT_NEAR(softmax, row.softmax, row.softmax_digits) << row.n;
    EXPECT_NEAR(softmax, 1 / (1 + (row.n - 1) * std::exp(-5.0)), 1e-6) << row.n;
    attention = given.Last();
    attention.params().policy = {RowScaleKind::kSsmax, &s};
    const double ssmax = ExpectExact(attention).stats[0].max_probability;
    EXPECT_NEAR(ssmax, row.ssmax, row.ssmax_digits) << row.n;
    EXPECT_NEAR(ssmax, 1 / (1 + (row.n - 1) * std::pow(row.n, -5 * 0.43)), 1e-6) << row.n;
  }
}

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
