// The row scale of every policy against its published formula.
#include "kernels/logit_policy.h"

#include <gtest/gtest.h>

#include <cmath>

namespace acuity::kernels {
namespace {

TEST(LogitPolicy, SoftmaxIsOneEverywhere) {
  for (int64_t n : {1, 7, 131072}) EXPECT_EQ(RowScale({}, 3, n, n - 1), 1.0f);
}

TEST(LogitPolicy, SsmaxIsSTimesTheNaturalLogarithmOfN) {
  const float s[] = {0.43f, -0.2f, 0.0f};
  const LogitPolicy policy = {RowScaleKind::kSsmax, s};
  for (int64_t n : {1, 2, 10, 1000, 131072}) {
    for (int head = 0; head < 3; ++head) {
      EXPECT_NEAR(RowScale(policy, head, n, 5), s[head] * std::log(static_cast<double>(n)), 1e-5);
    }
  }
}

TEST(LogitPolicy, SsmaxOfOneKeyIsZeroOrTheBias) {
  const float s[] = {0.43f}, b[] = {1.25f};
  EXPECT_EQ(RowScale({RowScaleKind::kSsmax, s}, 0, 1, 0), 0.0f);
  EXPECT_EQ(RowScale({RowScaleKind::kSsmax, s, b}, 0, 1, 0), 1.25f);
}

TEST(LogitPolicy, SsmaxDependsOnVisibleKeysNotOnPosition) {
  const float s[] = {0.5f};
  const LogitPolicy policy = {RowScaleKind::kSsmax, s};
  EXPECT_EQ(RowScale(policy, 0, 100, 99), RowScale(policy, 0, 100, 5000));
  EXPECT_NE(RowScale(policy, 0, 100, 99), RowScale(policy, 0, 101, 99));
}

TEST(LogitPolicy, LogNIsOneUpToTheTrainedLength) {
  const LogitPolicy policy = {RowScaleKind::kLogN, nullptr, nullptr, 2048};
  EXPECT_EQ(RowScale(policy, 0, 1, 0), 1.0f);
  EXPECT_EQ(RowScale(policy, 0, 2048, 2047), 1.0f);
  EXPECT_GT(RowScale(policy, 0, 2049, 2048), 1.0f);
  EXPECT_NEAR(RowScale(policy, 0, 8192, 8191), 13.0 / 11.0, 1e-6);
}

TEST(LogitPolicy, Llama4CountsFromOne) {
  const LogitPolicy policy = {RowScaleKind::kLlama4, nullptr, nullptr, 8192, 0.1f};
  EXPECT_EQ(RowScale(policy, 0, 8191, 8190), 1.0f);
  EXPECT_NEAR(RowScale(policy, 0, 8192, 8191), 1 + 0.1 * std::log(2.0), 1e-6);
  EXPECT_NEAR(RowScale(policy, 0, 8192, 8192 * 3 - 1), 1 + 0.1 * std::log(4.0), 1e-6);
}

TEST(LogitPolicy, MinistralCountsFromZero) {
  const LogitPolicy policy = {RowScaleKind::kMinistral, nullptr, nullptr, 16384, 0.1f};
  EXPECT_EQ(RowScale(policy, 0, 16384, 16383), 1.0f);
  EXPECT_NEAR(RowScale(policy, 0, 16385, 16384), 1 + 0.1 * std::log(2.0), 1e-6);
  EXPECT_NEAR(RowScale(policy, 0, 1, 16384 * 4), 1 + 0.1 * std::log(5.0), 1e-6);
}

TEST(LogitPolicy, SharpenIsOneUpToTheLengthAndGrowsWithTheLogarithmBeyond) {
  const float s[] = {0.2f, 0.0f, -0.1f}, b[] = {0.1f, 0.05f, 0.0f};
  const LogitPolicy policy = {RowScaleKind::kSharpen, s, b, 8192};
  for (int head = 0; head < 3; ++head) {
    for (int64_t n : {1, 100, 8192}) EXPECT_EQ(RowScale(policy, head, n, n - 1), 1.0f);
    for (int64_t n : {8193, 12000, 131072}) {
      const double exact = 1.0 + b[head] + s[head] * (std::log(double(n)) - std::log(8192.0));
      EXPECT_NEAR(RowScale(policy, head, n, n - 1), exact, 1e-6);
    }
  }
  const LogitPolicy without_b = {RowScaleKind::kSharpen, s, nullptr, 8192};
  EXPECT_NEAR(RowScale(without_b, 0, 16384, 16383), 1 + 0.2 * std::log(2.0), 1e-6);
  EXPECT_NEAR(RowScale(without_b, 0, 8193, 8192), 1, 1e-4);  // continuous
}

}  // namespace
}  // namespace acuity::kernels
