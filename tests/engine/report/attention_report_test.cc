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

// As a step would: sums rows [begin, begin + rows) of `total` rows, the first of which sees first_n
// keys, and adds them.
void Add(const std::vector<RowStats>& stats, int total, int begin, int rows, int first_n,
         const std::vector<int>& windows, int heads, bool by_head, AttentionAccumulator* to) {
  const int layers = static_cast<int>(windows.size());
  std::vector<kernels::MeasuredRows> measured;
  kernels::AppendMeasured({begin, begin + rows, first_n, by_head}, layers, heads, &measured);
  std::vector<kernels::RowSums> sums(kernels::SumsOf(measured, layers, heads));
  kernels::SumRows({stats.data(), total, layers, heads, windows.data(), measured.data(),
                    static_cast<int32_t>(measured.size()), sums.data()},
                   {});
  for (const kernels::MeasuredRows& part : measured) {
    to->Add(part, std::span(sums).subspan(part.at), windows);
  }
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
  EXPECT_NEAR(bucket.entropy, h / count, 1e-6);
  EXPECT_NEAR(bucket.normalized_entropy, normalized / count, 1e-6);
  EXPECT_NEAR(bucket.effective_context, effective / count, 2e-5);
  EXPECT_NEAR(bucket.effective_context_fraction, fraction / count, 1e-6);
  EXPECT_NEAR(bucket.max_probability, p / count, 1e-6);
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
        if (windows[layer] > 0) n = std::min<int64_t>(n, windows[layer]);
        const double entropy = std::min<double>(s.entropy, std::log(n));  // no more is possible
        observations.push_back({layer, head, n, entropy, s.max_probability});
      }
    }
  }
  return observations;
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

TEST(AttentionAccumulator, AgreesWithAStraightforwardComputation) {
  const std::vector<RowStats> stats = RandomStats(kLayers * kTotalRows * kHeads, 1);
  for (const std::vector<int>& windows : {kWindows, std::vector<int>(kLayers)}) {
    AttentionAccumulator accumulator(kLayers, kHeads, true), pooled(kLayers, kHeads, false);
    Add(stats, kTotalRows, 7, 40, 1, windows, kHeads, true, &accumulator);
    // Of all heads together the same, whether they came so or not.
    Add(stats, kTotalRows, 7, 25, 1, windows, kHeads, true, &pooled);
    Add(stats, kTotalRows, 32, 15, 26, windows, kHeads, false, &pooled);
    const std::vector<Observation> seen = Observe(stats, 7, 40, 1, windows);
    const AttentionReport report = accumulator.Report(Policies(kLayers), true);
    const AttentionReport layers = pooled.Report(Policies(kLayers), false);
    for (int layer = 0; layer < kLayers; ++layer) {
      EXPECT_TRUE(SameBits(layers.layers[layer].buckets, report.layers[layer].buckets));
    }
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
  }
}

TEST(AttentionAccumulator, BandsPoolTheirLayers) {
  const std::vector<RowStats> stats = RandomStats(kLayers * kTotalRows * kHeads, 2);
  AttentionAccumulator accumulator(kLayers, kHeads, false);
  Add(stats, kTotalRows, 0, 30, 3, kWindows, kHeads, false, &accumulator);
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
  AttentionAccumulator accumulator(2, 1, false);
  Add(stats, 8, 0, 8, 1, {0, 2}, 1, false, &accumulator);
  const AttentionReport report = accumulator.Summary(Policies(2), 1);
  std::vector<int64_t> rows;
  for (const AttentionBucket& bucket : report.layers[0].buckets) rows.push_back(bucket.rows);
  EXPECT_EQ(rows, (std::vector<int64_t>{1, 7, 4, 1}));  // the windowed layer has 7 rows at n = 2
}

TEST(AttentionAccumulator, PolicyOfABandIsItsFirstLayersOrMixed) {
  AttentionAccumulator accumulator(4, 1, false);
  Add(std::vector<RowStats>(4), 1, 0, 1, 1, {0, 0, 0, 0}, 1, false, &accumulator);
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
                                               {kernels::kMostSummedKeys, 1 << 20}};
  for (const auto& [n, n_min] : n_min_of) {
    AttentionAccumulator accumulator(1, 1, false);
    const float entropy = static_cast<float>(std::log(n));
    Add({{entropy, 1.0f / n, 0}}, 1, 0, 1, static_cast<int>(n), {0}, 1, false, &accumulator);
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
  AttentionAccumulator accumulator(1, 2, false);
  Add({{0, 1, 0}, {2, 0.5f, 0}}, 1, 0, 1, 16, {0}, 2, false, &accumulator);
  const AttentionReport report = accumulator.Report(Policies(1), false);
  EXPECT_NEAR(report.layers[0].buckets[0].effective_context, (1 + std::exp(2.0)) / 2, 1e-5);
}

TEST(AttentionAccumulator, ARowThatIsNoNumberInALayerAndHeadIsLeftOutThere) {
  const std::vector<RowStats> sound = RandomStats(2 * 3 * 2, 3);  // [layers, rows, heads]
  std::vector<RowStats> stats = sound;
  stats[(1 * 3 + 1) * 2 + 0].entropy = std::nanf("");
  AttentionAccumulator accumulator(2, 2, true), all(2, 2, true), others(2, 2, true);
  Add(stats, 3, 0, 3, 16, {0, 0}, 2, true, &accumulator);
  Add(sound, 3, 0, 3, 16, {0, 0}, 2, true, &all);
  Add(sound, 3, 0, 1, 16, {0, 0}, 2, true, &others);
  Add(sound, 3, 2, 1, 18, {0, 0}, 2, true, &others);
  const AttentionReport report = accumulator.Report(Policies(2), true);
  const AttentionReport expected = all.Report(Policies(2), true);
  EXPECT_TRUE(SameBits(report.layers[0].buckets, expected.layers[0].buckets));
  const std::vector<HeadReport>& heads = report.layers[1].heads;
  EXPECT_TRUE(
      SameBits(heads[0].buckets, others.Report(Policies(2), true).layers[1].heads[0].buckets));
  EXPECT_EQ(heads[0].buckets[0].rows, 2);
  EXPECT_TRUE(SameBits(heads[1].buckets, expected.layers[1].heads[1].buckets));
  // Of both heads: five of six, as many as three rows have at least once.
  const AttentionBucket& bucket = report.layers[1].buckets[0];
  EXPECT_EQ(bucket.rows, 3);
  EXPECT_NEAR(bucket.entropy,
              (2 * heads[0].buckets[0].entropy + 3 * heads[1].buckets[0].entropy) / 5, 1e-12);
}

TEST(AttentionAccumulator, NothingButRowsThatAreNoNumbersIsEmpty) {
  AttentionAccumulator accumulator(1, 1, true);
  Add({{std::nanf(""), 0, 0}}, 1, 0, 1, 16, {0}, 1, true, &accumulator);
  EXPECT_TRUE(accumulator.empty());
  EXPECT_TRUE(accumulator.Report(Policies(1), true).empty());
}

TEST(AttentionAccumulator, EmptyUntilTheFirstRow) {
  const AttentionAccumulator accumulator(3, 2, true);
  EXPECT_TRUE(accumulator.empty());
  EXPECT_TRUE(accumulator.Report(Policies(3), true).empty());
  EXPECT_TRUE(accumulator.Summary(Policies(3), 2).empty());
}

// More than an int64 of units holds: a pooled bucket of a large model and a long request.
TEST(AttentionAccumulator, ManyLargeSumsDoNotWrap) {
  AttentionAccumulator accumulator(1, 1, false);
  const int64_t most = int64_t{1} << 62;
  const std::vector<kernels::RowSums> sums = {{1 << 25, most, most, most, most, most}};
  const kernels::MeasuredRows rows = {0, 1, 9};
  for (int i = 0; i < 1000; ++i) accumulator.Add(rows, sums, std::vector<int>{0});
  const AttentionReport report = accumulator.Report(Policies(1), false);
  const AttentionBucket& bucket = report.layers[0].buckets[0];
  EXPECT_EQ(bucket.rows, int64_t{1000} << 25);
  EXPECT_EQ(bucket.entropy, 32);                 // 2^(62 - 32 - 25)
  EXPECT_EQ(bucket.effective_context, 1 << 21);  // 2^(62 - 16 - 25)
}

TEST(AttentionAccumulator, ChunksGiveTheSameBitsAsOneAdd) {
  const std::vector<RowStats> stats = RandomStats(kLayers * kTotalRows * kHeads, 3);
  AttentionAccumulator whole(kLayers, kHeads, true);
  Add(stats, kTotalRows, 2, 45, 1, kWindows, kHeads, true, &whole);
  const AttentionReport expected = whole.Report(Policies(kLayers), true);
  for (const int chunk : {1, 2, 7, 44}) {
    AttentionAccumulator chunked(kLayers, kHeads, true);
    for (int row = 0; row < 45; row += chunk) {
      const int rows = std::min(chunk, 45 - row);
      // Each chunk in a step of its own, at another offset beside other sequences' rows.
      const int total = rows + 4, begin = 3;
      std::vector<RowStats> step = RandomStats(kLayers * total * kHeads, 100 + row);
      for (int layer = 0; layer < kLayers; ++layer) {
        std::copy_n(&stats[(layer * kTotalRows + 2 + row) * kHeads], rows * kHeads,
                    &step[(layer * total + begin) * kHeads]);
      }
      Add(step, total, begin, rows, 1 + row, kWindows, kHeads, true, &chunked);
    }
    const AttentionReport report = chunked.Report(Policies(kLayers), true);
    for (int layer = 0; layer < kLayers; ++layer) {
      const LayerReport &a = report.layers[layer], &b = expected.layers[layer];
      EXPECT_TRUE(SameBits(a.buckets, b.buckets));
      for (int head = 0; head < kHeads; ++head) {
        EXPECT_TRUE(SameBits(a.heads[head].buckets, b.heads[head].buckets));
      }
    }
  }
}

}  // namespace
}  // namespace acuity::engine
