// The online state and its merge against the definition in double precision.
#include "kernels/attention_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace acuity::kernels {
namespace {

struct Exact {
  double entropy = 0, max_probability = 0, log_sum_exp = 0;
};

Exact FromDefinition(const std::vector<float>& logits) {
  double high = logits[0], sum = 0;
  for (double z : logits) high = std::max(high, z);
  for (double z : logits) sum += std::exp(z - high);
  Exact exact;
  exact.log_sum_exp = high + std::log(sum);
  exact.max_probability = 1 / sum;
  for (double z : logits) {
    exact.entropy -= std::exp(z - exact.log_sum_exp) * (z - exact.log_sum_exp);
  }
  return exact;
}

// One logit at a time, as the header prescribes.
SoftmaxState Feed(const std::vector<float>& logits) {
  SoftmaxState state;
  for (float z : logits) {
    const float u = z * kLog2E;
    if (u > state.m) Rescale(state, u);
    const float p = std::exp2(u - state.m);
    state.l += p;
    state.t += p * (u - state.m);
  }
  return state;
}

std::vector<float> Normal(int n, float scale, float offset, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(offset, scale);
  std::vector<float> values(n);
  for (float& x : values) x = normal(random);
  return values;
}

void ExpectNear(const RowStats& actual, const Exact& expected, double tolerance) {
  EXPECT_NEAR(actual.entropy, expected.entropy, tolerance);
  EXPECT_NEAR(actual.max_probability, expected.max_probability, tolerance);
  EXPECT_NEAR(actual.log_sum_exp, expected.log_sum_exp,
              tolerance * std::max(1.0, std::abs(expected.log_sum_exp)));
}

class StatsOfLength : public testing::TestWithParam<int> {};

TEST_P(StatsOfLength, AgreeWithTheDefinition) {
  for (float scale : {0.0f, 0.1f, 1.0f, 4.0f, 20.0f}) {
    const std::vector<float> logits = Normal(GetParam(), scale, 0.5f, GetParam());
    ExpectNear(Finalise(Feed(logits)), FromDefinition(logits), 1e-4);
  }
}

TEST_P(StatsOfLength, AscendingLogitsMoveTheMaximumEveryTime) {
  std::vector<float> logits(GetParam());
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.05f * static_cast<float>(i);
  ExpectNear(Finalise(Feed(logits)), FromDefinition(logits), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Lengths, StatsOfLength, testing::Values(1, 2, 3, 16, 17, 100, 1000, 5000));

TEST(AttentionStats, UniformRowHasTheEntropyOfItsLength) {
  for (int n : {1, 2, 7, 4096}) {
    const RowStats stats = Finalise(Feed(std::vector<float>(n, -3.25f)));
    EXPECT_NEAR(stats.entropy, std::log(n), 1e-5);
    EXPECT_NEAR(stats.max_probability, 1.0 / n, 1e-6);
    EXPECT_NEAR(stats.log_sum_exp, -3.25 + std::log(n), 1e-5);
  }
}

TEST(AttentionStats, RowWithoutKeys) {
  const RowStats stats = Finalise(SoftmaxState{});
  EXPECT_EQ(stats.entropy, 0);
  EXPECT_EQ(stats.max_probability, 0);
  EXPECT_EQ(stats.log_sum_exp, kMinusInfinity);
}

TEST(AttentionStats, RowWithALogitThatIsNoNumberHasNone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (float bad : {nan, -nan}) {
    for (int at : {0, 1, 2}) {
      std::vector<float> logits = {1, 2, 3};
      logits[at] = bad;
      const RowStats stats = Finalise(Feed(logits));
      EXPECT_TRUE(std::isnan(stats.entropy)) << at;
      EXPECT_TRUE(std::isnan(stats.max_probability)) << at;
      EXPECT_TRUE(std::isnan(stats.log_sum_exp)) << at;
    }
  }
}

TEST(AttentionStats, FirstMaximumFromNothing) {
  SoftmaxState state;
  EXPECT_EQ(Rescale(state, -5000.0f), 0.0f);
  EXPECT_EQ(state.m, -5000.0f);
  EXPECT_EQ(state.l, 0.0f);
  EXPECT_EQ(state.t, 0.0f);
}

TEST(AttentionStats, RescaleToTheSameMaximumChangesNoBit) {
  SoftmaxState state = {2.5f, 3.25f, -1.75f};
  EXPECT_EQ(Rescale(state, 2.5f), 1.0f);
  EXPECT_EQ(state.l, 3.25f);
  EXPECT_EQ(state.t, -1.75f);
}

TEST(AttentionStats, RescaleMovesTheEntropyByTheMaximumTimesTheMass) {
  // The D l term: two equal logits seen below a maximum that turns out 3 higher keep their
  // entropy's terms.
  SoftmaxState state = {1, 2, 0};
  Rescale(state, 4);
  EXPECT_FLOAT_EQ(state.l, 2.0f / 8);
  EXPECT_FLOAT_EQ(state.t, -3.0f * 2 / 8);
}

}  // namespace
}  // namespace acuity::kernels
