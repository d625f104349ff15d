#include "engine/report/span_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace acuity::engine {
namespace {

TEST(SpanReportTest, IsEmptyWithoutRows) {
  const SpanReport report = SpanAccumulator(2, 3, 1).Report();
  EXPECT_EQ(report.rows, 0);
  EXPECT_TRUE(report.layers.empty());
}

// Two layers, of which the second has a window of 8 keys; two heads, two spans; rows 1 and 2 of a
// step of three rows.
TEST(SpanReportTest, MeansOverRowsByLayerAndHead) {
  constexpr int kLayers = 2, kRows = 3, kHeads = 2, kSpans = 2;
  std::vector<kernels::RowStats> stats;
  for (int i = 0; i < kLayers * kRows * kHeads; ++i) {
    stats.push_back({0.1f * static_cast<float>(i), 0.05f * static_cast<float>(i), 0});
  }
  // Of each layer: of the two watched rows, heads x spans.
  std::vector<float> masses;
  for (int i = 0; i < kLayers * 2 * kHeads * kSpans; ++i) {
    masses.push_back(0.01f * static_cast<float>(i));
  }
  const std::vector<int> windows = {0, 8};
  SpanAccumulator accumulator(kLayers, kHeads, kSpans);
  const std::span<const float> all = masses;
  accumulator.Add(stats, kRows, 1, all, 2 * kHeads * kSpans, 20, windows);
  accumulator.Add(stats, kRows, 2, all.subspan(kHeads * kSpans), 2 * kHeads * kSpans, 21, windows);
  const SpanReport report = accumulator.Report();
  ASSERT_EQ(report.rows, 2);
  ASSERT_EQ(report.layers.size(), 2u);
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int head = 0; head < kHeads; ++head) {
      const HeadSpans& got = report.layers[layer][head];
      const double first = (layer * kRows + 1) * kHeads + head, second = first + kHeads;
      EXPECT_NEAR(got.max_probability, 0.05 * (first + second) / 2, 1e-6);
      EXPECT_NEAR(got.effective_context, (std::exp(.1 * first) + std::exp(.1 * second)) / 2, 1e-6);
      const double n1 = layer == 0 ? 20 : 8, n2 = layer == 0 ? 21 : 8;
      EXPECT_NEAR(got.normalized_entropy,
                  (.1 * first / std::log(n1) + .1 * second / std::log(n2)) / 2, 1e-6);
      for (int s = 0; s < kSpans; ++s) {
        const double mass = layer * 8 + head * 2 + s;
        EXPECT_NEAR(got.mass[s], .01 * (mass + mass + 4) / 2, 1e-6);
      }
    }
  }
}

TEST(SpanReportTest, ARowThatIsNoNumberIsLeftOut) {
  const float nan = std::nanf("");
  const std::vector<kernels::RowStats> stats = {{1, .5f, 0}, {1, .5f, 0}, {2, .5f, 0}, {nan, 0, 0}};
  const std::vector<float> masses = {.25f, .75f};
  SpanAccumulator accumulator(2, 1, 1);
  accumulator.Add(stats, 2, 1, masses, 1, 9, {});
  EXPECT_EQ(accumulator.Report().rows, 0);
  accumulator.Add(stats, 2, 0, masses, 1, 8, {});
  const SpanReport report = accumulator.Report();
  EXPECT_EQ(report.rows, 1);
  EXPECT_DOUBLE_EQ(report.layers[0][0].effective_context, std::exp(1.0));
  EXPECT_EQ(report.layers[1][0].mass[0], .75);
}

TEST(SpanReportTest, ARowThatSeesOneKeyIsFlatByConvention) {
  const std::vector<kernels::RowStats> stats = {{0, 1, 0}};
  const std::vector<float> masses = {1};
  SpanAccumulator accumulator(1, 1, 1);
  accumulator.Add(stats, 1, 0, masses, 1, 1, {});
  EXPECT_EQ(accumulator.Report().layers[0][0].normalized_entropy, 1);
}

}  // namespace
}  // namespace acuity::engine
