// Ways in which scaled attention and its statistics have gone wrong elsewhere, one test each. One
// source for all machines: which one, attention_matrix.h says to each binary.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/attention_matrix.h"

namespace acuity::kernels {
namespace {

constexpr int kDim = 64;

// One head whose logits are given: q = (1, 0, ...), k = (logit, 0, ...), which the pages round to
// their type.
struct GivenLogits {
  GivenLogits(const std::vector<float>& logits, DType type) : shape{1, 1, kDim, 16, type} {
    const int n = static_cast<int>(logits.size());
    sequence = MakeSequence(shape, n, 21);
    for (int i = 0; i < n; ++i) {
      for (int d = 0; d < kDim; ++d) {
        sequence.q[i * kDim + d] = d == 0 ? 1.0f : 0.0f;
        sequence.k[i * kDim + d] = d == 0 ? logits[i] : 0.0f;
      }
    }
  }
  // Rows [begin, ...), softmax_scale 1.
  AttentionCase From(int begin) {
    AttentionCase attention(shape, {{&sequence, begin, sequence.length}});
    attention.params().softmax_scale = 1;
    return attention;
  }
  AttentionCase Last() { return From(sequence.length - 1); }

  AttentionShape shape;
  SequenceData sequence;
};

using Param = std::tuple<int, DType>;  // which of the backends, and K's type

class AttentionTraps : public testing::TestWithParam<Param> {
 protected:
  AttentionBackend backend() { return Backends()[std::get<0>(GetParam())]; }
  DType type() { return std::get<1>(GetParam()); }
  Tolerance tolerance() { return backend().tolerance(type()); }

  GivenLogits Given(const std::vector<float>& logits) { return GivenLogits(logits, type()); }
  AttentionCase::Result ExpectExact(AttentionCase& attention) {
    AttentionCase::Result result = attention.Run(backend());
    ExpectNear(result, attention.Reference(), backend().name, tolerance());
    return result;
  }
};

std::string Name(const testing::TestParamInfo<Param>& info) {
  constexpr const char* kTypes[] = {"f32", "bf16", "f16", "f8"};
  std::string name = Backends()[std::get<0>(info.param)].name;
  for (char& c : name) c = c == ' ' ? '_' : c;
  return name + "_" + kTypes[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTraps,
                         testing::Combine(testing::Range(0, static_cast<int>(Backends().size())),
                                          testing::ValuesIn(Matrix().dtypes)),
                         Name);

// Of the backends that have it.
class SoftcapTraps : public AttentionTraps {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SoftcapTraps);
INSTANTIATE_TEST_SUITE_P(
    All, SoftcapTraps,
    testing::Combine(testing::Range(0, Matrix().softcap ? static_cast<int>(Backends().size()) : 0),
                     testing::ValuesIn(Matrix().dtypes)),
    Name);

TEST_P(AttentionTraps, DecodeScaleUsesTheAbsolutePositionAfterAnEightThousandTokenPrompt) {
  // Alone, key 0 has logit 1 and the others 0: p_max = n^s / (n^s + n - 1), which only n = 8193
  // gives.
  std::vector<float> logits(8193, 0.0f);
  logits[0] = 1;
  GivenLogits given = Given(logits);
  AttentionCase attention = given.Last();
  const float s = 1.0f;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.stats[0].max_probability, 8193.0 / (8193.0 + 8192.0), 1e-5);
}

TEST_P(AttentionTraps, NegativeScaleTakesTheMaximumOfScaledLogits) {
  std::vector<float> logits(300, 40.0f);
  logits[7] = -40;  // the greatest once s is negative
  GivenLogits given = Given(logits);
  AttentionCase attention = given.Last();
  const float s = -1.0f;
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  EXPECT_FLOAT_EQ(ExpectExact(attention).stats[0].max_probability, 1.0f);
}

TEST_P(AttentionTraps, ZeroScaleIsUniformOverTheVisibleKeysOnly) {
  for (int rows : {5, 30}) {  // a GPU decodes the first, and prefills the second
    std::vector<float> logits(rows, 3.0f);
    logits[1] = -7, logits[2] = 100, logits.back() = 6e4f;
    GivenLogits given = Given(logits);
    AttentionCase attention = given.From(0);
    const float s = 0;
    attention.params().policy = {RowScaleKind::kSsmax, &s};
    const AttentionCase::Result result = ExpectExact(attention);
    for (int row = 0; row < rows; ++row) {
      EXPECT_NEAR(result.stats[row].entropy, std::log(row + 1.0), 1e-5);
      EXPECT_NEAR(result.stats[row].max_probability, 1.0 / (row + 1), 1e-6);
    }
  }
}

TEST_P(AttentionTraps, OneKeyBesideASinkHasLogitZero) {
  // n = 1: the multiplier is 0, so the key has logit 0 however large q.k is.
  GivenLogits given = Given({64});
  AttentionCase attention = given.Last();
  const float s = 0.5f, sink = std::log(3.0f);
  attention.params().policy = {RowScaleKind::kSsmax, &s};
  attention.params().sinks = &sink;
  const AttentionCase::Result result = ExpectExact(attention);
  EXPECT_NEAR(result.out[0], given.sequence.v[0] / 4, 1e-6);
  EXPECT_EQ(result.stats[0].max_probability, 1.0f);
  EXPECT_EQ(result.stats[0].entropy, 0.0f);
  EXPECT_NEAR(result.stats[0].log_sum_exp, 0.0f, 1e-12);
}

TEST_P(AttentionTraps, SinkFarAboveOrBelowEveryLogit) {
  for (float sink : {500.0f, -500.0f}) {
    GivenLogits given = Given({1, 2, 3});
    AttentionCase attention = given.Last();
    attention.params().sinks = &sink;
    ExpectExact(attention);
  }
}

TEST_P(AttentionTraps, FirstTileOfVeryNegativeLogits) {
  std::vector<float> logits(200, -320.0f);
  logits[150] = -288;  // both have few bits
  GivenLogits given = Given(logits);
  AttentionCase attention = given.Last();
  attention.params().softmax_scale = 16;
  EXPECT_FLOAT_EQ(ExpectExact(attention).stats[0].max_probability, 1.0f);
}

TEST_P(AttentionTraps, LazilyMaskedTilesHoldWhateverWasThereBefore) {
  // Rows whose first tiles lie wholly before their window, in one task with rows that do see them.
  const AttentionShape shape = {1, 1, kDim, 16, type()};
  const SequenceData a = MakeSequence(shape, 400, 22, 3);
  AttentionCase attention(shape, {{&a, 300, 390}});
  attention.params().window = 65;
  ExpectExact(attention);
}

TEST_P(AttentionTraps, RowsThatSeeNothingOfASplit) {
  // The first two of these five rows see nothing of a split that begins at key 512; under a window
  // of 2 the last sees nothing of the one before.
  const AttentionShape shape = {6, 2, kDim, 16, type()};
  const SequenceData a = MakeSequence(shape, 520, 45);
  for (int window : {0, 2}) {
    AttentionCase attention(shape, {{&a, 510, 515}});
    attention.params().window = window;
    ExpectExact(attention);
  }
}

TEST_P(SoftcapTraps, ComesBeforeTheMask) {
  // After the mask, a masked key would count with exp(-cap) instead of nothing.
  std::vector<float> logits(70, 0.0f);
  GivenLogits given = Given(logits);
  AttentionCase attention = given.From(0);
  attention.params().logit_softcap = 1;
  EXPECT_NEAR(ExpectExact(attention).stats[9].max_probability, 0.1, 1e-6);
}

TEST_P(SoftcapTraps, ComesAfterTheRowScale) {
  std::vector<float> logits(100, 0.0f);
  logits[3] = 1000;
  GivenLogits given = Given(logits);
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
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i / 32) * 0.125f;
  GivenLogits given = Given(logits);
  AttentionCase attention = given.Last();
  EXPECT_GT(ExpectExact(attention).stats[0].entropy, 4.0f);
}

TEST_P(AttentionTraps, NanStaysInItsRowAndIsNotHidden) {
  const AttentionShape shape = {6, 2, kDim, 16, type()};
  SequenceData sequence = MakeSequence(shape, 100, 46);
  sequence.q[50 * 6 * kDim] = std::nanf("");  // head 0 of row 50
  AttentionCase attention(shape, {{&sequence, 0, 100}});
  const AttentionCase::Result result = attention.Run(backend());
  for (int i = 0; i < 600; ++i) {
    EXPECT_EQ(std::isnan(result.out[i * kDim]), i == 300) << i;
    EXPECT_EQ(std::isnan(result.stats[i].entropy), i == 300) << i;
    EXPECT_EQ(std::isnan(result.stats[i].max_probability), i == 300) << i;
  }
}

TEST_P(AttentionTraps, NanInAKeyReachesEveryRowThatSeesIt) {
  std::vector<float> logits(90, 0.5f);
  logits[70] = std::nanf("");
  GivenLogits given = Given(logits);
  AttentionCase attention = given.From(0);
  const AttentionCase::Result result = attention.Run(backend());
  for (int row = 0; row < 90; ++row) {
    EXPECT_EQ(std::isnan(result.out[row * kDim]), row >= 70) << row;
    EXPECT_EQ(std::isnan(result.stats[row].entropy), row >= 70) << row;
  }
}

TEST_P(AttentionTraps, OracleIdentity) {
  // E_p[z] = c q . (sum_j p_j k_j): with V = K the output gives the mean logit, and H = lse -
  // E_p[z].
  const AttentionShape shape = {2, 1, kDim, 16, type()};
  SequenceData a = MakeSequence(shape, 777, 23, 2);
  a.v = a.k;
  AttentionCase attention(shape, {{&a, 776, 777}});
  const float s[] = {0.3f, -0.2f};
  attention.params().policy = {RowScaleKind::kSsmax, s};
  const AttentionCase::Result result = attention.Run(backend());
  for (int head = 0; head < 2; ++head) {
    double mean = 0;
    for (int d = 0; d < kDim; ++d) {
      mean += double{a.q[(776 * 2 + head) * kDim + d]} * result.out[head * kDim + d];
    }
    mean *= s[head] * std::log(777.0) * attention.params().softmax_scale;
    // The mean is as exact as the output is.
    EXPECT_NEAR(result.stats[head].entropy, result.stats[head].log_sum_exp - mean,
                2 * tolerance().out);
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
    GivenLogits given = Given(logits);
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

}  // namespace
}  // namespace acuity::kernels
