// Top-k and top-p without a sort: a threshold on the weights' bits, found by four-way search.
#pragma once

#include <math.h>

#include <bit>
#include <cstdint>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/sample_row.cuh"

namespace acuity::kernels::cuda {

// Tokens with weight bits above `threshold`, and of those at it the first `ties` by id.
struct SampleKept {
  uint32_t threshold;
  int ties;
};

class SampleCut {
 public:
  static constexpr int kWarps = SampleRowView::kWarps;
  static constexpr int kPivots = 3;
  // Two sets of sums, used in turn: a warp may write one while a slower one still reads the other.
  static constexpr int kSharedDoubles = 2 * kPivots * kWarps;

  ACUITY_DEVICE SampleCut(const SampleRowView& row, prim::Shared<double> sums)
      : row_(row), sums_(sums) {}

  ACUITY_DEVICE SampleKept Cut(const SampleRow& params) {
    constexpr int kAll = 0x7fffffff;
    SampleKept kept = {1, kAll};  // every token of positive weight
    const bool top_k = params.top_k > 0 && params.top_k < row_.vocab;
    if (top_k) {
      kept.threshold = Search<true>(1, params.top_k);
      const uint32_t pivots[kPivots] = {kept.threshold + 1, kOne + 1, kOne + 1};
      kept.ties = params.top_k - static_cast<int>(Reaching<true>(pivots).value[0]);
    }
    if (params.top_p >= 1) return kept;
    const uint32_t pivots[kPivots] = {kept.threshold, kept.threshold + 1, kOne + 1};
    const Sums mass = Reaching<false>(pivots);
    const double at = static_cast<double>(std::bit_cast<float>(kept.threshold));
    const double capped = mass.value[1] + kept.ties * at;
    const double goal = static_cast<double>(params.top_p) *
                        (top_k && capped < mass.value[0] ? capped : mass.value[0]);
    const uint32_t threshold = Search<false>(kept.threshold, goal);
    const uint32_t beyond[kPivots] = {threshold + 1, kOne + 1, kOne + 1};
    const double rest = goal - Reaching<false>(beyond).value[0];
    const double each = static_cast<double>(std::bit_cast<float>(threshold));
    int ties = 1;
    if (rest > each) {
      ties = rest / each < row_.vocab ? static_cast<int>(ceil(rest / each)) : row_.vocab;
    }
    if (threshold == kept.threshold && kept.ties < ties) ties = kept.ties;
    return {threshold, ties};
  }

 private:
  static constexpr uint32_t kOne = 0x3f800000;  // the bits of 1, which the most likely token weighs

  struct Sums {
    double value[kPivots];
  };

  // The sums over the block, the same bits in every thread.
  ACUITY_DEVICE Sums BlockSums(Sums sums) {
    const prim::Shared<double> scratch = sums_ + turn_ * kPivots * kWarps;
    turn_ ^= 1;
    ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) sums.value[k] = WarpSum(sums.value[k]);
    const int warp = prim::WarpIndex();
    if (prim::LaneIndex() == 0) {
      ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) scratch[warp * kPivots + k] = sums.value[k];
    }
    prim::BlockSync();
    ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
      sums.value[k] = 0;
      for (int i = 0; i < kWarps; ++i) sums.value[k] += scratch[i * kPivots + k];
    }
    return sums;
  }

  // For each pivot, the number (kCount) or the mass of the tokens whose weight bits reach it.
  template <bool kCount>
  ACUITY_DEVICE Sums Reaching(const uint32_t (&pivots)[kPivots]) {
    Sums sums = {};
    for (int id = SampleRowView::First(); id < row_.vocab; id += SampleRowView::kStep) {
      const SampleRowView::Four w = row_.Load(row_.weights, id, 0);
      ACUITY_UNROLL for (int i = 0; i < SampleRowView::kPerLoad; ++i) {
        const uint32_t bits = std::bit_cast<uint32_t>(w.value[i]);
        ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
          if (bits >= pivots[k]) sums.value[k] += kCount ? 1.0 : static_cast<double>(w.value[i]);
        }
      }
    }
    return BlockSums(sums);
  }

  // The largest threshold in [low, kOne] whose tokens reach `goal`; `low`, if none does.
  template <bool kCount>
  ACUITY_DEVICE uint32_t Search(uint32_t low, double goal) {
    uint32_t high = kOne + 1;  // nothing reaches it
    while (high - low > 1) {
      const uint32_t step = (high - low + kPivots) / (kPivots + 1);
      uint32_t pivots[kPivots];
      ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
        const uint32_t pivot = low + (static_cast<uint32_t>(k) + 1) * step;
        pivots[k] = pivot < high ? pivot : high;
      }
      const Sums sums = Reaching<kCount>(pivots);
      ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
        if (pivots[k] >= high) break;
        if (sums.value[k] >= goal) {
          low = pivots[k];
        } else {
          high = pivots[k];
        }
      }
    }
    return low;
  }

  SampleRowView row_;
  prim::Shared<double> sums_;
  int turn_ = 0;
};

}  // namespace acuity::kernels::cuda
