#include "engine/sample/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "engine/sample/random.h"

namespace acuity::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> Normal(size_t n, float deviation, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(Scan, FindsTheFirstMaximumAtEverySizeAroundLanesAndBlocks) {
  for (const size_t n : {1, 2, 15, 16, 17, 31, 33, 1023, 1024, 1025, 2050, 49152}) {
    std::vector<float> logits = Normal(n, 3, static_cast<int>(n));
    for (const size_t at : {size_t{0}, n / 2, n - 1}) {
      std::vector<float> changed = logits;
      changed[at] = 50;
      changed[n - 1] = 50;  // a tie, later
      const LogitScan scan = Scan(changed);
      ASSERT_TRUE(scan.valid);
      EXPECT_EQ(scan.argmax, static_cast<TokenId>(at)) << n;
      EXPECT_EQ(scan.max, 50);
    }
  }
}

TEST(Scan, NegativeAndMaskedLogits) {
  const LogitScan scan = Scan(std::vector<float>{-kInf, -3e38f, -kInf, -2e38f});
  EXPECT_TRUE(scan.valid);
  EXPECT_EQ(scan.argmax, 3);
}

TEST(Scan, NothingFiniteNanOrInfinityIsInvalidWhereverItIs) {
  EXPECT_FALSE(Scan({}).valid);
  EXPECT_FALSE(Scan(std::vector<float>(40, -kInf)).valid);
  for (const size_t n : {1, 16, 17, 1030}) {
    for (const float bad : {kNan, -kNan, kInf}) {
      for (size_t at = 0; at < n; ++at) {
        std::vector<float> logits(n, 1.0f);
        logits[at] = bad;
        ASSERT_FALSE(Scan(logits).valid) << n << " " << at;
      }
    }
  }
}

TEST(LogSumExp, AgreesWithFloat64) {
  for (const size_t n : {1, 7, 16, 100, 49152}) {
    for (const float deviation : {0.01f, 1.0f, 5.0f, 40.0f}) {
      std::vector<float> logits = Normal(n, deviation, 5);
      if (n > 7) logits[3] = -kInf;
      const float max = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
      EXPECT_NEAR(LogSumExp(logits, max), max + std::log(sum), 3e-7) << n << " " << deviation;
    }
  }
}

TEST(LogSumExp, LargeOffsetsCancel) {
  std::vector<float> logits(1000, 1000.0f);
  EXPECT_NEAR(LogSumExp(logits, 1000), 1000 + std::log(1000.0), 1e-9);
}

TEST(Weigh, AgreesWithFloat64OverTheWholeRange) {
  std::vector<float> logits;
  for (int i = 0; i <= 100000; ++i) logits.push_back(-static_cast<float>(i) * 0.001f);
  const std::vector<float> before = logits;
  Weigh(logits, 0, 1);
  EXPECT_EQ(logits[0], 1);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (before[i] < -87) {
      ASSERT_EQ(logits[i], 0);
    } else {
      const double exact = std::exp(static_cast<double>(before[i]));
      ASSERT_NEAR(logits[i] / exact, 1, 2e-7) << before[i];
    }
  }
}

TEST(Weigh, ExtremeTemperaturesAndMasks) {
  std::vector<float> logits = {-kInf, 5, 4.999f, 5};
  Weigh(logits, 5, 1e-40f);
  EXPECT_EQ(logits, (std::vector<float>{0, 1, 0, 1}));
  logits = {-kInf, 3e38f, -3e38f};
  Weigh(logits, 3e38f, 100);
  EXPECT_EQ(logits, (std::vector<float>{0, 1, 0}));
}

TEST(UniformAt, IsInTheUnitIntervalAndFlat) {
  constexpr int kBins = 64, kDraws = 640000;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
    std::vector<int> bins(kBins);
    for (int i = 0; i < kDraws; ++i) {
      const double u = UniformAt(seed, i);
      ASSERT_GE(u, 0);
      ASSERT_LT(u, 1);
      ++bins[static_cast<int>(u * kBins)];
    }
    double chi_square = 0;
    for (int count : bins) chi_square += std::pow(count - kDraws / kBins, 2) / (kDraws / kBins);
    EXPECT_LT(chi_square, 103.4) << seed;  // 63 degrees of freedom, p = 0.001
  }
}

TEST(UniformAt, SeedsAndPositionsAreIndependent) {
  constexpr int kDraws = 100000;
  const auto correlation = [](auto a, auto b) {
    double sum = 0;
    for (int i = 0; i < kDraws; ++i) sum += (a(i) - 0.5) * (b(i) - 0.5);
    return 12 * sum / kDraws;
  };
  const double limit = 4 / std::sqrt(kDraws);
  const auto by_position = [](uint64_t seed, int64_t lag) {
    return [=](int i) { return UniformAt(seed, i + lag); };
  };
  const auto by_seed = [](int64_t position) {
    return [=](int i) { return UniformAt(static_cast<uint64_t>(i), position); };
  };
  EXPECT_LT(std::abs(correlation(by_position(1, 0), by_position(2, 0))), limit);
  EXPECT_LT(std::abs(correlation(by_position(1, 0), by_position(2, 1))), limit);
  EXPECT_LT(std::abs(correlation(by_position(7, 0), by_position(7, 1))), limit);
  EXPECT_LT(std::abs(correlation(by_seed(0), by_seed(1))), limit);
  EXPECT_LT(std::abs(correlation(by_seed(0), by_position(0, 0))), limit);
}

TEST(UniformAt, NoTwoOfManyCoincide) {
  std::set<double> seen;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    for (int64_t position = 0; position < 300; ++position) seen.insert(UniformAt(seed, position));
  }
  EXPECT_EQ(seen.size(), 90000u);
}

}  // namespace
}  // namespace acuity::engine
