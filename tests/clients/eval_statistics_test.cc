#include "clients/cpp/eval_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace acuity::client {
namespace {

// Figures of the formula, worked out in Python.
TEST(EvalStatisticsTest, SharesHaveWilsonsInterval) {
  struct Row {
    int64_t k, n;
    double low, high;
  };
  for (const Row& row : {Row{0, 10, 0.0, 0.2775327998628892}, Row{10, 10, 0.7224672001371107, 1.0},
                         Row{7, 20, 0.18119182410108206, 0.5671457233147638},
                         Row{599, 600, 0.9906204395238613, 0.9997057317991506}}) {
    const Estimate e = Share(row.k, row.n);
    EXPECT_DOUBLE_EQ(e.value, static_cast<double>(row.k) / static_cast<double>(row.n));
    EXPECT_NEAR(e.low, row.low, 1e-12);
    EXPECT_NEAR(e.high, row.high, 1e-12);
    EXPECT_EQ(e.count, row.n);
  }
}

TEST(EvalStatisticsTest, MeanAndItsStandardError) {
  Mean mean;
  EXPECT_EQ(mean.standard_error(), 0);
  for (double x : {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0}) mean.Add(1e6 + x);
  EXPECT_NEAR(mean.value(), 1e6 + 5, 1e-9);
  const double error = std::sqrt(32.0 / 7 / 8);  // squares about the mean: 32
  EXPECT_NEAR(mean.standard_error(), error, 1e-9);
  EXPECT_NEAR(mean.estimate().high - mean.value(), 1.959964 * error, 1e-6);
  EXPECT_EQ(mean.estimate().count, 8);
}

TEST(EvalStatisticsTest, SpreadIsTheRange) {
  const std::vector<Estimate> estimates = {{.5, .4, .6, 10}, {.9, .8, 1, 10}, {.7, .6, .8, 5}};
  const Estimate e = Spread(estimates);
  EXPECT_NEAR(e.value, .7, 1e-12);
  EXPECT_EQ(e.low, .5);
  EXPECT_EQ(e.high, .9);
  EXPECT_EQ(e.count, 25);
  // One model has its own error bar.
  EXPECT_EQ(Spread({estimates.data(), 1}).low, .4);
}

TEST(EvalStatisticsTest, BelowIsUniform) {
  std::mt19937_64 random = GeneratorOf(1, 2, 3);
  std::vector<int> counts(7);
  for (int i = 0; i < 7000; ++i) ++counts[Below(random, 7)];
  double chi_squared = 0;
  for (int count : counts) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000;
  EXPECT_LT(chi_squared, 22.5);  // 6 degrees of freedom, p = .001
  EXPECT_NE(GeneratorOf(1, 2, 3)(), GeneratorOf(1, 3, 2)());
}

}  // namespace
}  // namespace acuity::client
