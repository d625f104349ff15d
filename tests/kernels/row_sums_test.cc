#include "kernels/row_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/thread_pool.h"
#include "tests/kernels/row_stats_maker.h"

namespace acuity::kernels {
namespace {

constexpr int kLayers = 3, kHeads = 5;
const std::vector<int32_t> kWindows = {0, 48, 7};

// A step whose middle rows are one sequence's.
struct Step {
  Step(int first_n, int rows, int before, int after, uint32_t seed) : begin(before), count(rows) {
    for (int i = 0; i < before + rows + after; ++i) n.push_back(std::max(1, first_n + i - before));
    stats = RandomRowStats(kLayers, n, kWindows, kHeads, seed);
  }

  SumRowsParams params(const std::vector<MeasuredRows>& measured, RowSums* sums) const {
    SumRowsParams p;
    p.stats = stats.data();
    p.rows = static_cast<int64_t>(n.size());
    p.num_layers = kLayers;
    p.num_heads = kHeads;
    p.windows = kWindows.data();
    p.measured = measured.data();
    p.count = static_cast<int32_t>(measured.size());
    p.sums = sums;
    return p;
  }
  // [num_layers, num_heads, or 1] over all of the sequence's rows, in pieces of `chunk` rows.
  std::vector<RowSums> Sum(int chunk, bool by_head, const ParallelFor& parallel = {}) const {
    std::vector<MeasuredRows> measured;
    for (int row = 0; row < count; row += chunk) {
      AppendMeasured({begin + row, begin + std::min(row + chunk, count), n[begin + row], by_head},
                     kLayers, kHeads, &measured);
    }
    std::vector<RowSums> sums(SumsOf(measured, kLayers, kHeads), {-1, -1, -1, -1, -1, -1});
    SumRows(params(measured, sums.data()), parallel);
    const size_t width = by_head ? kHeads : 1;
    std::vector<RowSums> all(kLayers * width);
    for (const MeasuredRows& part : measured) {
      for (size_t i = 0; i < all.size(); ++i) {
        const RowSums& s = sums[part.at + i];
        all[i] = {all[i].rows + s.rows,
                  all[i].entropy + s.entropy,
                  all[i].normalized + s.normalized,
                  all[i].effective + s.effective,
                  all[i].fraction + s.fraction,
                  all[i].max_probability + s.max_probability};
      }
    }
    return all;
  }

  int begin, count;
  std::vector<int32_t> n;  // of all rows
  std::vector<RowStats> stats;
};

// The means that `sums` has against the straightforward ones.
void ExpectMeans(const Step& step, int layer, int head_begin, int head_end, const RowSums& sums) {
  double count = 0, entropy = 0, normalized = 0, effective = 0, fraction = 0, p = 0;
  for (int row = step.begin; row < step.begin + step.count; ++row) {
    const int window = kWindows[layer];
    const double n = window > 0 ? std::min(step.n[row], window) : step.n[row];
    for (int head = head_begin; head < head_end; ++head) {
      const RowStats& s = step.stats[(layer * step.n.size() + row) * kHeads + head];
      if (!std::isfinite(s.entropy)) continue;
      const double h = std::min<double>(s.entropy, std::log(n));
      ++count;
      entropy += h;
      normalized += n == 1 ? 1 : h / std::log(n);
      effective += std::exp(h);
      fraction += std::exp(h) / n;
      p += s.max_probability;
    }
  }
  ASSERT_EQ(static_cast<double>(sums.rows), count);
  if (count == 0) return;
  const auto near = [&](double sum, double expected, double unit, const char* what) {
    EXPECT_NEAR(sum * unit / count, expected / count, 5e-7 * expected / count + unit) << what;
  };
  near(static_cast<double>(sums.entropy), entropy, kRowSumUnit, "entropy");
  near(static_cast<double>(sums.normalized), normalized, kRowSumUnit, "normalized");
  near(static_cast<double>(sums.effective), effective, kEffectiveUnit, "effective");
  near(static_cast<double>(sums.fraction), fraction, kRowSumUnit, "fraction");
  near(static_cast<double>(sums.max_probability), p, kRowSumUnit, "max_probability");
}

TEST(RowSumsTest, MeansAreTheDefinitionsInDoublePrecision) {
  uint32_t seed = 0;
  for (const auto& [first_n, rows] :
       {std::pair(1, 1), {1, 100}, {2, 1}, {40, 300}, {100'000, 70}, {kMostSummedKeys, 1}}) {
    const Step step(first_n, rows, 3, 2, ++seed);
    const std::vector<RowSums> pooled = step.Sum(rows, false), by_head = step.Sum(rows, true);
    for (int layer = 0; layer < kLayers; ++layer) {
      SCOPED_TRACE(testing::Message() << "n from " << first_n << ", layer " << layer);
      ExpectMeans(step, layer, 0, kHeads, pooled[layer]);
      for (int head = 0; head < kHeads; ++head) {
        ExpectMeans(step, layer, head, head + 1, by_head[layer * kHeads + head]);
      }
    }
  }
}

TEST(RowSumsTest, TheSameBitsInAnyChunksByAnyThreads) {
  ThreadPool pool(3);
  for (const bool by_head : {false, true}) {
    const std::vector<RowSums> whole = Step(1, 200, 0, 0, 9).Sum(200, by_head);
    for (const int chunk : {1, 2, 7, 64, 199}) {
      EXPECT_EQ(Step(1, 200, 0, 0, 9).Sum(chunk, by_head, pool.parallel_for()), whole) << chunk;
    }
  }
}

RowSums One(float entropy, float p, int32_t n) {
  RowSums sums;
  AddRow({entropy, p, 0}, KeyCount(n), &sums);
  return sums;
}

TEST(RowSumsTest, OneKeyIsEvenByConvention) {
  const int64_t one = int64_t{1} << 32;
  EXPECT_EQ(One(0, 1, 1), (RowSums{1, 0, one, 1 << 16, one, one}));
  EXPECT_EQ(One(0, 1, 2), (RowSums{1, 0, 0, 1 << 16, one / 2, one}));
}

TEST(RowSumsTest, ARowWithoutANumberCountsInNothing) {
  for (const float entropy : {std::nanf(""), HUGE_VALF}) {
    EXPECT_EQ(One(entropy, 0.5f, 9), RowSums{});
  }
  // Beside it, in another head or row, others do.
  std::vector<RowStats> stats = {{1, .5f, 0}, {std::nanf(""), .5f, 0}, {1, .5f, 0}, {2, 1, 0}};
  std::vector<MeasuredRows> measured;
  AppendMeasured({0, 2, 16, true}, 1, 2, &measured);
  RowSums sums[2];
  const int32_t no_window = 0;
  SumRows({stats.data(), 2, 1, 2, &no_window, measured.data(), 1, sums}, {});
  EXPECT_EQ(sums[0].rows, 2);
  EXPECT_EQ(sums[0].entropy, int64_t{2} << 32);
  EXPECT_EQ(sums[1].rows, 1);
  EXPECT_EQ(sums[1].entropy, int64_t{2} << 32);
}

TEST(RowSumsTest, LogarithmsOfEveryCount) {
  EXPECT_EQ(LogOfCount(1), 0);
  for (int32_t n = 2; n <= kMostSummedKeys; n += 1 + n / 5000) {
    ASSERT_NEAR(LogOfCount(n) / std::log(static_cast<double>(n)), 1, 2e-7) << n;
  }
}

// The most that terms can be, times as many as one sum may have: what the header claims.
TEST(RowSumsTest, NoSumWraps) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max() >> kMostTermsLog2;
  for (int32_t n = 1; n <= kMostSummedKeys; n = 2 * n + 1) {
    const RowSums most = One(100, 7, n);
    EXPECT_EQ(most.max_probability, int64_t{1} << 32);
    EXPECT_NEAR(static_cast<double>(most.effective) * kEffectiveUnit / n, 1, 1e-6);
    for (const int64_t sum : {most.entropy, most.normalized, most.effective, most.fraction}) {
      EXPECT_GT(sum, -1);
      EXPECT_LE(sum, kMost) << n;
    }
  }
  EXPECT_GE(One(100, 7, kMostSummedKeys).entropy, int64_t{14} << 32);
}

TEST(RowSumsTest, MeasuredRowsAreCutAtPowersOfTwo) {
  std::vector<MeasuredRows> list;
  AppendMeasured({10, 20, 1, false}, 3, 4, &list);   // n 1 | 2, 3 | 4 to 7 | 8 to 10
  AppendMeasured({20, 21, 64, true}, 3, 4, &list);   // the first of a range
  AppendMeasured({21, 23, 127, true}, 3, 4, &list);  // n 127 | 128
  AppendMeasured({23, 23, 5, true}, 3, 4, &list);
  const int expected[][4] = {{10, 11, 1, 0},   {11, 13, 2, 3},    {13, 17, 4, 6},   {17, 20, 8, 9},
                             {20, 21, 64, 12}, {21, 22, 127, 24}, {22, 23, 128, 36}};
  ASSERT_EQ(list.size(), std::size(expected));
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_EQ(list[i].row_begin, expected[i][0]) << i;
    EXPECT_EQ(list[i].row_end, expected[i][1]) << i;
    EXPECT_EQ(list[i].first_n, expected[i][2]) << i;
    EXPECT_EQ(list[i].at, expected[i][3]) << i;
    EXPECT_EQ(list[i].by_head, i >= 4) << i;
  }
  EXPECT_EQ(SumsOf(list, 3, 4), 48);
}

TEST(RowSumsTest, MeasuredRowsStayInOneBucketUnderAnyWindow) {
  std::vector<MeasuredRows> list;
  AppendMeasured({0, 300, 1}, 1, 1, &list);
  for (const MeasuredRows& rows : list) {
    for (int window = 1; window < 310; ++window) {
      const int bucket = ContextBucket(std::min(rows.first_n, window));
      for (int row = 0; row < rows.num_rows(); ++row) {
        ASSERT_EQ(ContextBucket(std::min(rows.first_n + row, window)), bucket)
            << "n " << rows.first_n + row << ", window " << window;
      }
    }
  }
}

}  // namespace
}  // namespace acuity::kernels
