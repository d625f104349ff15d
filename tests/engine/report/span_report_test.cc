#include "engine/report/span_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace acuity::engine {
namespace {

// Each of `stats` alone, of a row that sees n[i] keys.
std::vector<kernels::RowSums> Sums(const std::vector<kernels::RowStats>& stats,
                                   const std::vector<int>& n) {
  std::vector<kernels::RowSums> sums(stats.size());
  for (size_t i = 0; i < stats.size(); ++i) {
    kernels::AddRow(stats[i], kernels::KeyCount(n[i]), &sums[i]);
  }
  return sums;
}

TEST(SpanReportTest, IsEmptyWithoutRows) {
  const SpanReport report = SpanAccumulator(2, 3, 1).Report();
  EXPECT_EQ(report.rows, 0);
  EXPECT_TRUE(report.layers.empty());
}

// Two layers, of which the second has a window of 8 keys; two heads, two spans; two rows.
TEST(SpanReportTest, MeansOverRowsByLayerAndHead) {
  constexpr int kLayers = 2, kHeads = 2, kSpans = 2;
  const std::vector<kernels::RowStats> rows[] = {
      {{.2f, .1f, 0}, {.3f, .15f, 0}, {.8f, .4f, 0}, {.9f, .45f, 0}},
      {{.4f, .2f, 0}, {.5f, .25f, 0}, {1.f, .5f, 0}, {1.1f, .55f, 0}}};
  // Of each layer: of the two watched rows, heads x spans.
  std::vector<float> masses;
  for (int i = 0; i < kLayers * 2 * kHeads * kSpans; ++i) {
    masses.push_back(0.01f * static_cast<float>(i));
  }
  SpanAccumulator accumulator(kLayers, kHeads, kSpans);
  const std::span<const float> all = masses;
  accumulator.Add(Sums(rows[0], {20, 20, 8, 8}), all, 2 * kHeads * kSpans);
  accumulator.Add(Sums(rows[1], {21, 21, 8, 8}), all.subspan(kHeads * kSpans), 2 * kHeads * kSpans);
  const SpanReport report = accumulator.Report();
  ASSERT_EQ(report.rows, 2);
  ASSERT_EQ(report.layers.size(), 2u);
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int head = 0; head < kHeads; ++head) {
      const HeadSpans& got = report.layers[layer][head];
      const double first = 2 + 6 * layer + head, second = first + 2;  // tenths of a nat
      EXPECT_NEAR(got.max_probability, 0.05 * (first + second) / 2, 1e-6);
      EXPECT_NEAR(got.effective_context, (std::exp(.1 * first) + std::exp(.1 * second)) / 2, 1e-5);
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
  const std::vector<float> masses = {.25f, .75f};
  SpanAccumulator accumulator(2, 1, 1);
  accumulator.Add(Sums({{1, .5f, 0}, {nan, 0, 0}}, {9, 9}), masses, 1);
  EXPECT_EQ(accumulator.Report().rows, 0);
  accumulator.Add(Sums({{1, .5f, 0}, {2, .5f, 0}}, {8, 8}), masses, 1);
  const SpanReport report = accumulator.Report();
  EXPECT_EQ(report.rows, 1);
  EXPECT_NEAR(report.layers[0][0].effective_context, std::exp(1.0), 1e-5);
  EXPECT_EQ(report.layers[1][0].mass[0], .75);
}

TEST(SpanReportTest, ARowThatSeesOneKeyIsFlatByConvention) {
  const std::vector<float> masses = {1};
  SpanAccumulator accumulator(1, 1, 1);
  accumulator.Add(Sums({{0, 1, 0}}, {1}), masses, 1);
  EXPECT_EQ(accumulator.Report().layers[0][0].normalized_entropy, 1);
}

}  // namespace
}  // namespace acuity::engine
