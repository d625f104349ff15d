// kernels/cuda/experts.h against sorting and float64: on the emulated machine with random
// schedules, or on a GPU.
#include "kernels/cuda/experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/halves.h"

namespace acuity::kernels::cuda {
namespace {

struct Routed {
  std::vector<int32_t> experts, slots, begin, slot_rows;
  std::vector<float> weights;
};

struct RouteCase {
  int64_t rows;
  int count, per_token;
  bool normalised;
};

Routed Route(const RouteCase& c, const std::vector<float>& logits) {
  const auto choices = static_cast<size_t>(c.rows * c.per_token);
  DeviceArray<float> logits_d(logits, 1), weights(std::vector<float>(choices + 1, -77));
  DeviceArray<int32_t> experts(std::vector<int32_t>(choices + 1, -77)),
      slots(std::vector<int32_t>(choices + 1, -77)), rows(std::vector<int32_t>(choices + 1, -77)),
      begin(std::vector<int32_t>(c.count + 2, -77));
  const RouteExpertsParams p = {logits_d.data(), c.rows,         c.count,        c.per_token,
                                c.normalised,    experts.data(), weights.data(), slots.data(),
                                begin.data(),    rows.data()};
  EXPECT_STREQ(RouteExperts(p, nullptr), nullptr);
  EXPECT_STREQ(Finish(), nullptr);
  Routed routed = {experts.Read(), slots.Read(), begin.Read(), rows.Read(), weights.Read()};
  for (auto* values : {&routed.experts, &routed.slots, &routed.begin, &routed.slot_rows}) {
    EXPECT_EQ(values->back(), -77);
    values->pop_back();
  }
  EXPECT_EQ(routed.weights.back(), -77);
  routed.weights.pop_back();
  return routed;
}

// The experts of one row and their weights, by a stable sort.
void ExpectChoices(const RouteCase& c, const float* logits, const int32_t* experts,
                   const float* weights, const std::string& where) {
  std::vector<int32_t> order(static_cast<size_t>(c.count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  double sum = 0;
  const int summed = c.normalised ? c.per_token : c.count;
  for (int i = 0; i < summed; ++i) sum += std::exp(double{logits[order[i]]} - logits[order[0]]);
  for (int i = 0; i < c.per_token; ++i) {
    ASSERT_EQ(experts[i], order[i]) << where << " choice " << i;
    const double weight = std::exp(double{logits[order[i]]} - logits[order[0]]) / sum;
    ExpectNear(weight, weights[i], 1e-6, 1e-30, where + " choice " + std::to_string(i));
  }
}

// Slots are the assignments sorted by expert, then by row.
void ExpectSlots(const RouteCase& c, const Routed& routed) {
  std::vector<int32_t> order(routed.experts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return routed.experts[a] < routed.experts[b]; });
  ASSERT_EQ(routed.begin.front(), 0);
  ASSERT_EQ(routed.begin.back(), static_cast<int32_t>(order.size()));
  for (size_t slot = 0; slot < order.size(); ++slot) {
    const int32_t expert = routed.experts[order[slot]];
    ASSERT_EQ(routed.slots[order[slot]], static_cast<int32_t>(slot));
    ASSERT_EQ(routed.slot_rows[slot], order[slot] / c.per_token);
    ASSERT_LE(routed.begin[expert], static_cast<int32_t>(slot));
    ASSERT_LT(static_cast<int32_t>(slot), routed.begin[expert + 1]);
  }
}

TEST(CudaRouteExperts, ChoicesWeightsAndSlots) {
  uint64_t seed = 30;
  for (const RouteCase& c :
       {RouteCase{1, 1, 1, true}, RouteCase{5, 8, 2, true}, RouteCase{70, 60, 4, false},
        RouteCase{9, 128, 8, true}, RouteCase{150, 5, 5, false}, RouteCase{3, 1024, 32, false}}) {
    const std::string where =
        std::to_string(c.rows) + " rows of " + std::to_string(c.count) + " experts";
    // Quarters: many of them are equal.
    std::vector<float> logits = Random(c.rows * c.count, static_cast<uint32_t>(++seed), 3);
    for (float& x : logits) x = std::round(4 * x) / 4;
    SetScheduleSeed(seed);
    const Routed routed = Route(c, logits);
    for (int64_t row = 0; row < c.rows; ++row) {
      ExpectChoices(c, &logits[row * c.count], &routed.experts[row * c.per_token],
                    &routed.weights[row * c.per_token], where + ", row " + std::to_string(row));
    }
    if (!HasFatalFailure()) ExpectSlots(c, routed);
    if (HasFatalFailure()) FAIL() << where;
  }
}

TEST(CudaRouteExperts, InfinityAndNanStayInTheirRow) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  const RouteCase c = {4, 4, 2, true};
  const std::vector<float> logits = {1,    -kInfinity, -kInfinity, -kInfinity,  // one expert
                                     1,    2,          kNan,       0,           //
                                     0,    0,          0,          0,           // a tie
                                     kNan, kNan,       kNan,       kNan};
  const Routed routed = Route(c, logits);
  EXPECT_EQ(routed.experts, (std::vector<int32_t>{0, 1, 1, 0, 0, 1, 0, 1}));
  EXPECT_EQ(routed.weights[0], 1);
  EXPECT_EQ(routed.weights[1], 0);
  EXPECT_TRUE(std::isnan(routed.weights[2]) && std::isnan(routed.weights[3]));
  EXPECT_EQ(routed.weights[4], 0.5f);
  EXPECT_EQ(routed.weights[5], 0.5f);
  EXPECT_TRUE(std::isnan(routed.weights[6]) && std::isnan(routed.weights[7]));
  ExpectSlots(c, routed);
}

void CheckCombine(DType dtype, int dim, int per_token, size_t offset) {
  constexpr int64_t kRows = 3;
  std::vector<float> routed;
  const std::vector<uint16_t> halves =
      RandomHalves(dtype, kRows * per_token * dim, static_cast<uint32_t>(dim), &routed);
  const std::vector<float> weights = Random(kRows * per_token, 2, 0.3f);
  std::vector<int32_t> slots(static_cast<size_t>(kRows * per_token));
  std::iota(slots.rbegin(), slots.rend(), 0);
  DeviceArray<uint16_t> routed_d(halves, offset),
      out_d(std::vector<uint16_t>(kRows * dim + 1, kGuard), offset);
  DeviceArray<float> weights_d(weights);
  DeviceArray<int32_t> slots_d(slots);
  const CombineExpertsParams p = {
      dtype, routed_d.data(), slots_d.data(), weights_d.data(), per_token, kRows,
      dim,   out_d.data()};
  ASSERT_STREQ(CombineExperts(p, nullptr), nullptr);
  ASSERT_STREQ(Finish(), nullptr);
  const std::vector<uint16_t> out = out_d.Read();
  ASSERT_EQ(out.back(), kGuard);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int i = 0; i < dim; ++i) {
      double expected = 0;
      for (int64_t j = row * per_token; j < (row + 1) * per_token; ++j) {
        expected += double{weights[j]} * routed[slots[j] * dim + i];
      }
      ExpectNear(expected, Widen(dtype, out[row * dim + i]), Tolerance(dtype), 2e-6,
                 "dim " + std::to_string(dim) + " row " + std::to_string(row) + " element " +
                     std::to_string(i));
    }
  }
}

TEST(CudaCombineExperts, EveryTailAndAlignmentAgainstDouble) {
  uint64_t seed = 50;
  for (DType dtype : kTypes) {
    for (int dim : {1, 7, 8, 576, 1030}) {
      for (size_t offset : {size_t{0}, size_t{1}}) {
        SetScheduleSeed(++seed);
        CheckCombine(dtype, dim, dim % 2 == 0 ? 8 : 1, offset);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaExperts, RefuseWhatTheyCannotDo) {
  RouteExpertsParams route;
  route.count = 1025;
  EXPECT_STREQ(RouteExperts(route, nullptr), "RouteExperts: count must be within 1 and 1024");
  route.count = 40, route.per_token = 33;
  EXPECT_STREQ(RouteExperts(route, nullptr),
               "RouteExperts: per_token must be within 1 and 32, and at most count");
  route.per_token = 2, route.rows = -1;
  EXPECT_STREQ(RouteExperts(route, nullptr), "RouteExperts: rows must be within 0 and 2^20");
  CombineExpertsParams combine;
  combine.dtype = DType::kFloat32;
  EXPECT_STREQ(CombineExperts(combine, nullptr),
               "CombineExperts: dtype must be kBFloat16 or kFloat16");
  combine.dtype = DType::kFloat16;
  EXPECT_STREQ(CombineExperts(combine, nullptr), "CombineExperts: per_token must be at least 1");
  combine.per_token = 1;
  EXPECT_STREQ(CombineExperts(combine, nullptr),
               "CombineExperts: dim must be within 1 and 67107840");
  combine.dim = 8, combine.rows = (1 << 20) + 1;
  EXPECT_STREQ(CombineExperts(combine, nullptr), "CombineExperts: rows must be within 0 and 2^20");
  combine.rows = 0;
  EXPECT_STREQ(CombineExperts(combine, nullptr), nullptr);
}

}  // namespace
}  // namespace acuity::kernels::cuda
