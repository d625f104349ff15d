#include "engine/report/attention_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace acuity::engine {
namespace {

using kernels::RowStats;

std::vector<RowStats> RandomStats(size_t size, int seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> entropy(0, 6), probability(0, 1);
  std::vector<RowStats> stats(size);
  for (RowStats& s : stats) s = {entropy(generator), probability(generator), 0};
  return stats;
}

std::vector<std::string> Policies(int layers, const std::string& name = "softmax") {
  return std::vector<std::string>(layers, name);
}

// One (row, head) as a test sees it: the straightforward computation keeps them all.
struct Observation {
  int layer, head;
  int64_t n;
  double entropy, max_probability;
};

void ExpectBucket(const AttentionBucket& bucket, const std::vector<Observation>& of) {
  double h = 0, normalized = 0, effective = 0, fraction = 0, p = 0;
  for (const Observation& o : of) {
    h += o.entropy;
    normalized += o.n == 1 ? 1 : o.entropy / std::log(o.n);
    effective += std::exp(o.entropy);
    fraction += std::exp(o.entropy) / o.n;
    p += o.max_probability;
  }
  const double count = static_cast<double>(of.size());
  EXPECT_NEAR(bucket.entropy, h / count, 1e-12);
  EXPECT_NEAR(bucket.normalized_entropy, normalized / count, 1e-12);
  EXPECT_NEAR(bucket.effective_context, effective / count, 1e-10);
  EXPECT_NEAR(bucket.effective_context_fraction, fraction / count, 1e-10);
  EXPECT_NEAR(bucket.max_probability, p / count, 1e-12);
}

// `selected` into buckets by n, which must be exactly those reported.
void ExpectBuckets(const std::vector<AttentionBucket>& buckets,
                   const std::vector<Observation>& observations, auto selected, int64_t per_row) {
  std::map<int, std::vector<Observation>> expected;
  for (const Observation& o : observations) {
    if (selected(o)) expected[static_cast<int>(std::floor(std::log2(o.n)))].push_back(o);
  }
  ASSERT_EQ(buckets.size(), expected.size());
  size_t i = 0;
  for (const auto& [exponent, of] : expected) {
    EXPECT_EQ(buckets[i].n_min, int64_t{1} << exponent);
    EXPECT_EQ(buckets[i].n_max, (int64_t{1} << (exponent + 1)) - 1);
    if (per_row > 0) {
      EXPECT_EQ(buckets[i].rows * per_row, static_cast<int64_t>(of.size()));
    }
    ExpectBucket(buckets[i++], of);
  }
}

constexpr int kLayers = 5, kHeads = 3, kTotalRows = 50;
const std::vector<int> kWindows = {0, 8, 0, 8, 5};

std::vector<Observation> Observe(const std::vector<RowStats>& stats, int row_begin, int num_rows,
                                 int64_t first_n, const std::vector<int>& windows) {
  std::vector<Observation> observations;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int row = 0; row < num_rows; ++row) {
      for (int head = 0; head < kHeads; ++head) {
        const RowStats& s = stats[(layer * kTotalRows + row_begin + row) * kHeads + head];
        int64_t n = first_n + row;
        if (!windows.empty() && windows[layer] > 0) n = std::min<int64_t>(n, windows[layer]);
        observations.push_back({layer, head, n, s.entropy, s.max_probability});
      }
    }
  }
  return observations;
}

TEST(AttentionAccumulator, AgreesWithAStraightforwardComputation) {
  const std::vector<RowStats> stats = RandomStats(kLayers * kTotalRows * kHeads, 1);
  for (const std::vector<int>& windows : {kWindows, std::vector<int>{}}) {
    AttentionAccumulator accumulator(kLayers, kHeads);
    accumulator.Add(stats, kTotalRows, 7, 40, 1, windows);
    const std::vector<Observation> seen = Observe(stats, 7, 40, 1, windows);
    const AttentionReport report = accumulator.Report(Policies(kLayers), true);
    ASSERT_EQ(report.layers.size(), size_t{kLayers});
    for (int layer = 0; layer < kLayers; ++layer) {
      const LayerReport& reported = report.layers[layer];
      EXPECT_EQ(reported.layer, layer);
      EXPECT_EQ(reported.last_layer, layer);
      ExpectBuckets(
          reported.buckets, seen, [&](auto& o) { return o.layer == layer; }, kHeads);
      ASSERT_EQ(reported.heads.size(), size_t{kHeads});
      for (int head = 0; head < kHeads; ++head) {
        EXPECT_EQ(reported.heads[head].head, head);
        ExpectBuckets(
            reported.heads[head].buckets, seen,
            [&](auto& o) { return o.layer == layer && o.head == head; }, 1);
      }
    }
    EXPECT_EQ(accumulator.rows(), 40);
  }
}

TEST(AttentionAccumulator, BandsPoolTheirLayers) {
  const std::vector<RowStats> stats = RandomStats(kLayers * kTotalRows * kHeads, 2);
  AttentionAccumulator accumulator(kLayers, kHeads);
  accumulator.Add(stats, kTotalRows, 0, 30, 3, kWindows);
  const std::vector<Observation> seen = Observe(stats, 0, 30, 3, kWindows);
  for (int bands = 1; bands <= kLayers + 3; ++bands) {
    const AttentionReport report = accumulator.Summary(Policies(kLayers), bands);
    ASSERT_EQ(static_cast<int>(report.layers.size()), std::min(bands, kLayers));
    int next = 0, smallest = kLayers, largest = 0;
    for (const LayerReport& band : report.layers) {
      EXPECT_EQ(band.layer, next);
      ASSERT_GE(band.last_layer, band.layer);
      next = band.last_layer + 1;
      smallest = std::min(smallest, next - band.layer);
      largest = std::max(largest, next - band.layer);
      EXPECT_TRUE(band.heads.empty());
      ExpectBuckets(
          band.buckets, seen,
          [&](auto& o) { return o.layer >= band.layer && o.layer <= band.last_layer; }, 0);
    }
    EXPECT_EQ(next, kLayers);
    EXPECT_LE(largest - smallest, 1);
  }
}

TEST(AttentionAccumulator, RowsOfABandAreThoseOfTheLayerWithTheMost) {
  const std::vector<RowStats> stats(2 * 8);
  AttentionAccumulator accumulator(2, 1);
  accumulator.Add(stats, 8, 0, 8, 1, std::vector<int>{0, 2});
  const AttentionReport report = accumulator.Summary(Policies(2), 1);
  std::vector<int64_t> rows;
  for (const AttentionBucket& bucket : report.layers[0].buckets) rows.push_back(bucket.rows);
  EXPECT_EQ(rows, (std::vector<int64_t>{1, 7, 4, 1}));  // the windowed layer has 7 rows at n = 2
}

TEST(AttentionAccumulator, PolicyOfABandIsItsFirstLayersOrMixed) {
  AttentionAccumulator accumulator(4, 1);
  accumulator.Add(std::vector<RowStats>(4), 1, 0, 1, 1, {});
  const std::vector<std::string> policies = {"ssmax", "ssmax", "softmax", "ssmax"};
  AttentionReport report = accumulator.Summary(policies, 2);
  EXPECT_EQ(report.layers[0].policy, "ssmax");
  EXPECT_EQ(report.layers[1].policy, "mixed");
  report = accumulator.Report(policies, false);
  EXPECT_EQ(report.layers[2].policy, "softmax");
  EXPECT_EQ(report.layers[3].policy, "ssmax");
}

TEST(AttentionAccumulator, BucketBoundaries) {
  const std::map<int64_t, int64_t> n_min_of = {{1, 1},
                                               {2, 2},
                                               {3, 2},
                                               {4, 4},
                                               {7, 4},
                                               {8, 8},
                                               {(1 << 20) - 1, 1 << 19},
                                               {1 << 20, 1 << 20},
                                               {(1 << 21) - 1, 1 << 20},
                                               {1 << 21, 1 << 20}};  // the last bucket is open
  for (const auto& [n, n_min] : n_min_of) {
    AttentionAccumulator accumulator(1, 1);
    const float entropy = static_cast<float>(std::log(n));
    accumulator.Add(std::vector<RowStats>{{entropy, 1.0f / n, 0}}, 1, 0, 1, n, {});
    const AttentionReport report = accumulator.Report(Policies(1), false);
    ASSERT_EQ(report.layers[0].buckets.size(), 1u) << n;
    const AttentionBucket& bucket = report.layers[0].buckets[0];
    EXPECT_EQ(bucket.n_min, n_min) << n;
    EXPECT_EQ(bucket.n_max, 2 * n_min - 1) << n;
    EXPECT_EQ(bucket.rows, 1);
    // Uniform attention: normalised entropy 1, effective context n.
    EXPECT_NEAR(bucket.normalized_entropy, 1, 1e-6) << n;
    EXPECT_NEAR(bucket.effective_context / n, 1, 1e-5) << n;
    EXPECT_NEAR(bucket.effective_context_fraction, 1, 1e-5) << n;
  }
}

TEST(AttentionAccumulator, EffectiveContextIsTheMeanOfExponentials) {
  AttentionAccumulator accumulator(1, 2);
  accumulator.Add(std::vector<RowStats>{{0, 1, 0}, {2, 0.5f, 0}}, 1, 0, 1, 16, {});
  const AttentionReport report = accumulator.Report(Policies(1), false);
  EXPECT_DOUBLE_EQ(report.layers[0].buckets[0].effective_context, (1 + std::exp(2.0)) / 2);
}

TEST(AttentionAccumulator, ARowThatIsNoNumberInOneLayerIsLeftOutOfAll) {
  const std::vector<RowStats> sound = RandomStats(2 * 3 * 2, 3);  // [layers, rows, heads]
  std::vector<RowStats> stats = sound;
  stats[(1 * 3 + 1) * 2 + 0].entropy = std::nanf("");
  AttentionAccumulator accumulator(2, 2), expected(2, 2);
  accumulator.Add(stats, 3, 0, 3, 16, {});
  expected.Add(sound, 3, 0, 1, 16, {});
  expected.Add(sound, 3, 2, 1, 18, {});
  EXPECT_EQ(accumulator.rows(), 2);
  const AttentionReport report = accumulator.Report(Policies(2), true);
  for (int layer = 0; layer < 2; ++layer) {
    ASSERT_EQ(report.layers[layer].buckets.size(), 1u);
    const AttentionBucket& bucket = report.layers[layer].buckets[0];
    EXPECT_EQ(bucket.rows, 2);
    EXPECT_EQ(bucket.entropy, expected.Report(Policies(2), true).layers[layer].buckets[0].entropy);
  }
}

TEST(AttentionAccumulator, NothingButRowsThatAreNoNumbersIsEmpty) {
  AttentionAccumulator accumulator(1, 1);
  accumulator.Add(std::vector<RowStats>{{std::nanf(""), 0, 0}}, 1, 0, 1, 16, {});
  EXPECT_TRUE(accumulator.Report(Policies(1), true).empty());
}

TEST(AttentionAccumulator, EmptyUntilTheFirstRow) {
  AttentionAccumulator accumulator(3, 2);
  accumulator.Add({}, 0, 0, 0, 1, {});
  EXPECT_EQ(accumulator.rows(), 0);
  EXPECT_TRUE(accumulator.Report(Policies(3), true).empty());
  EXPECT_TRUE(accumulator.Summary(Policies(3), 2).empty());
}

bool SameBits(const std::vector<AttentionBucket>& a, const std::vector<AttentionBucket>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.n_min == y.n_min && x.n_max == y.n_max && x.rows == y.rows && x.entropy == y.entropy &&
           x.normalized_entropy == y.normalized_entropy &&
           x.effective_context == y.effective_context &&
           x.effective_context_fraction == y.effective_context_fraction &&
           x.max_probability == y.max_probability;
  });
}

TEST(AttentionAccumulator, ChunksGiveTheSameBitsAsOneAdd) {
  const std::vector<RowStats> stats = RandomStats(kLayers * kTotalRows * kHeads, 3);
  AttentionAccumulator whole(kLayers, kHeads);
  whole.Add(stats, kTotalRows, 2, 45, 1, kWindows);
  const AttentionReport expected = whole.Report(Policies(kLayers), true);
  for (const int chunk : {1, 2, 7, 44}) {
    AttentionAccumulator chunked(kLayers, kHeads);
    for (int row = 0; row < 45; row += chunk) {
      const int rows = std::min(chunk, 45 - row);
      // Each chunk in a step of its own, at another offset beside other sequences' rows.
      const int total = rows + 4, begin = 3;
      std::vector<RowStats> step = RandomStats(kLayers * total * kHeads, 100 + row);
      for (int layer = 0; layer < kLayers; ++layer) {
        std::copy_n(&stats[(layer * kTotalRows + 2 + row) * kHeads], rows * kHeads,
                    &step[(layer * total + begin) * kHeads]);
      }
      chunked.Add(step, total, begin, rows, 1 + row, kWindows);
    }
    const AttentionReport report = chunked.Report(Policies(kLayers), true);
    for (int layer = 0; layer < kLayers; ++layer) {
      const LayerReport &a = report.layers[layer], &b = expected.layers[layer];
      EXPECT_TRUE(SameBits(a.buckets, b.buckets));
      for (int head = 0; head < kHeads; ++head) {
        EXPECT_TRUE(SameBits(a.heads[head].buckets, b.heads[head].buckets));
      }
    }
    EXPECT_EQ(chunked.rows(), whole.rows());
  }
}

}  // namespace
}  // namespace acuity::engine
