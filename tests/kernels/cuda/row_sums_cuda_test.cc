// kernels/cuda/row_sums.h against the CPU's sums, bit by bit: on the emulated machine with random
// schedules, or on a GPU.
#include "kernels/cuda/row_sums.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/row_stats_maker.h"

namespace acuity::kernels::cuda {
namespace {

struct Case {
  int layers, heads;
  std::vector<int32_t> windows;
  std::vector<MeasuredRows> measured;  // not yet cut; the rows between them belong to nobody
};

void Compare(const Case& c, size_t offset, uint64_t seed) {
  std::vector<MeasuredRows> measured;
  std::vector<int32_t> n;
  for (const MeasuredRows& rows : c.measured) {
    n.resize(static_cast<size_t>(rows.row_begin), 3);
    for (int i = 0; i < rows.num_rows(); ++i) n.push_back(rows.first_n + i);
    AppendMeasured(rows, c.layers, c.heads, &measured);
  }
  n.resize(n.size() + 2, 5);
  const std::vector<RowStats> stats =
      RandomRowStats(c.layers, n, c.windows, c.heads, static_cast<uint32_t>(seed));
  const auto size = static_cast<size_t>(SumsOf(measured, c.layers, c.heads));
  const RowSums guard = {-7, -7, -7, -7, -7, -7};
  std::vector<RowSums> expected(size + 1, guard);
  SumRowsParams p = {stats.data(),
                     static_cast<int64_t>(n.size()),
                     c.layers,
                     c.heads,
                     c.windows.data(),
                     measured.data(),
                     static_cast<int32_t>(measured.size()),
                     expected.data()};
  kernels::SumRows(p, {});

  measured.insert(measured.begin(), MeasuredRows{});  // padding
  measured.push_back(MeasuredRows{});
  const DeviceArray<RowStats> stats_d(stats, offset);
  const DeviceArray<int32_t> windows_d(c.windows, offset);
  const DeviceArray<MeasuredRows> measured_d(measured, offset);
  const DeviceArray<RowSums> sums_d(std::vector<RowSums>(size + 1, guard), offset);
  p.stats = stats_d.data();
  p.windows = windows_d.data();
  p.measured = measured_d.data();
  p.count = static_cast<int32_t>(measured.size());
  p.sums = sums_d.data();
  SetScheduleSeed(seed);
  ASSERT_STREQ(SumRows(p, nullptr), nullptr);
  ASSERT_STREQ(Finish(), nullptr);
  EXPECT_TRUE(sums_d.Read() == expected) << "case " << seed;
}

TEST(CudaSumRows, TheSameBitsAsOnTheCpu) {
  const Case cases[] = {
      {1, 1, {0}, {{0, 1, 1}}},
      {1, 1, {0}, {{0, 1, 1, true}}},
      {2, 9, {0, 5}, {{0, 90, 1}, {90, 91, 700}, {93, 130, 2000, true}, {131, 135, 15, true}}},
      {2, 33, {3, 16}, {{1, 40, 2, true}, {40, 75, 9}}},
      {1, 4, {1000}, {{0, 300, 800}, {300, 301, kMostSummedKeys, true}}},
      {3, 8, {0, 0, 1}, {{0, 1, 12}, {1, 2, 512}, {2, 3, 1023}}},  // a decode step
  };
  uint64_t seed = 0;
  for (const Case& c : cases) {
    for (const size_t offset : {0, 1}) Compare(c, offset, ++seed);
  }
}

TEST(CudaSumRows, RefusesWhatItCannotDo) {
  SumRowsParams p;
  const auto refused = [&] {
    const char* reason = SumRows(p, nullptr);
    return std::string(reason == nullptr ? "" : reason);
  };
  p.num_layers = p.num_heads = 1;
  EXPECT_EQ(refused(), "");  // nothing to sum
  p.num_heads = 0;
  EXPECT_EQ(refused(), "SumRows: num_heads must be at least 1");
  p.num_layers = 65536;
  EXPECT_EQ(refused(), "SumRows: num_layers must be within 1 and 65535");
  p.count = -1;
  EXPECT_EQ(refused(), "SumRows: count must be at least 0");
}

}  // namespace
}  // namespace acuity::kernels::cuda
