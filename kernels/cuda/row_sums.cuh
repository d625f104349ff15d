// Sums of row statistics: a block for each (measured rows, layer), so that nothing needs to be
// zeroed before or added atomically. Compile without fused multiply-adds: see
// kernels/sampling_math.h.
#pragma once

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/row_sums.h"

namespace acuity::kernels::cuda {

// Blocks (x, y): measured rows x, layer y.
struct SumRowsKernel {
  using Args = SumRowsParams;
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kSharedBytes = 6 * kWarps * sizeof(int64_t);

  ACUITY_DEVICE static void Run(const Args& p) {
    const MeasuredRows measured = p.measured[prim::BlockIndex().x];
    const int64_t layer = prim::BlockIndex().y;
    const int rows = measured.row_end - measured.row_begin;
    if (rows <= 0) return;
    const Layer at = {p.stats + (layer * p.rows + measured.row_begin) * p.num_heads, p.num_heads,
                      measured.first_n, p.windows[layer]};
    if (measured.by_head) {
      RowSums* sums = p.sums + measured.at + layer * p.num_heads;
      ACUITY_NO_UNROLL
      for (int head = prim::WarpIndex(); head < p.num_heads; head += kWarps) {
        RowSums sum;
        for (int row = prim::LaneIndex(); row < rows; row += prim::kWarpSize)
          at.Add(row, head, sum);
        sum = OverWarp(sum);
        if (prim::LaneIndex() == 0) sums[head] = sum;
      }
    } else {
      RowSums sum;
      // Threads over (row, head) as they lie.
      for (int i = prim::ThreadIndex(); i < rows * p.num_heads; i += kThreads) {
        at.Add(i / p.num_heads, i % p.num_heads, sum);
      }
      sum = OverBlock(sum);
      if (prim::ThreadIndex() == 0) p.sums[measured.at + layer] = sum;
    }
  }

 private:
  // The measured rows in one layer.
  struct Layer {
    const RowStats* stats;  // [rows, num_heads]
    int num_heads;
    int first_n, window;

    ACUITY_DEVICE void Add(int row, int head, RowSums& sums) const {
      const int n = first_n + row;
      AddRow(stats[int64_t{row} * num_heads + head],
             KeyCount(window > 0 && window < n ? window : n), &sums);
    }
  };

  ACUITY_DEVICE static RowSums OverWarp(const RowSums& sum) {
    return {WarpSum(sum.rows),      WarpSum(sum.entropy),  WarpSum(sum.normalized),
            WarpSum(sum.effective), WarpSum(sum.fraction), WarpSum(sum.max_probability)};
  }

  ACUITY_DEVICE static RowSums OverBlock(const RowSums& sum) {
    const prim::Shared<int64_t> scratch = prim::SharedMemory<int64_t>();
    return {BlockSum<kWarps>(sum.rows, scratch),
            BlockSum<kWarps>(sum.entropy, scratch + kWarps),
            BlockSum<kWarps>(sum.normalized, scratch + 2 * kWarps),
            BlockSum<kWarps>(sum.effective, scratch + 3 * kWarps),
            BlockSum<kWarps>(sum.fraction, scratch + 4 * kWarps),
            BlockSum<kWarps>(sum.max_probability, scratch + 5 * kWarps)};
  }
};

}  // namespace acuity::kernels::cuda
