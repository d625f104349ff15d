// Partial results of rows whose keys were split, merged in the order of the keys: a warp a packed
// row, the lanes over splits for the states and over dimensions for the output.
#pragma once

#include "kernels/cuda/attention_state.cuh"

namespace acuity::kernels::cuda {

template <Variant kV>
struct MergeKernel {
  using Args = AttentionArgs;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * prim::kWarpSize;
  static constexpr int kMinBlocksPerSm = 4;
  static constexpr int kHeadDim = kV.head_dim;

  ACUITY_DEVICE static void Run(const Args& args) {
    const int index = static_cast<int>(prim::BlockIndex().x);
    if (index >= *args.count) return;
    const MergeTask merge = args.merges[index];
    AttentionTask task;
    task.seq = merge.seq;
    task.kv_head = merge.kv_head;
    task.row_begin = merge.row_begin;
    task.row_end = merge.row_end;
    const SequenceRows seq = RowsOf(args.params, task);
    const int packed_rows = (merge.row_end - merge.row_begin) * GroupSize(args.params.shape);
    for (int packed = prim::WarpIndex(); packed < packed_rows; packed += kWarps) {
      const PackedRow row = MakeRow(args.params, task, seq, packed);
      const float* slots = args.workspace + (merge.first_slot + packed) * SlotFloats(kHeadDim);
      MergeRow(args.params, row, slots, packed_rows * SlotFloats(kHeadDim), merge.num_slots);
    }
  }

 private:
  // Part p is `stride` floats behind part p - 1.
  ACUITY_DEVICE static void MergeRow(const AttentionParams& params, const PackedRow& row,
                                     const float* slots, int64_t stride, int parts) {
    const int lane = prim::LaneIndex();
    const Partial total = MergeStates(slots, stride, parts);
    if (kV.stats && lane == 0) StoreStats(params, row.row, row.head, total);
    const float factor = OutputFactor(params, row.head, total.softmax);
    constexpr int kDims = kHeadDim / prim::kWarpSize;
    float sums[kDims] = {};
    for (int p = 0; p < parts; ++p) {
      const float* slot = slots + p * stride;
      const float weight = Weight(slot[0], total.softmax.m);
      ACUITY_UNROLL
      for (int i = 0; i < kDims; ++i) {
        sums[i] += weight * slot[kSlotStateFloats + i * prim::kWarpSize + lane];
      }
    }
    float* to = OutputRow(params, row.row, row.head);
    ACUITY_UNROLL
    for (int i = 0; i < kDims; ++i) to[i * prim::kWarpSize + lane] = sums[i] * factor;
  }

  // A lane adds every 32nd part, then the lanes' sums are added as a tree: always in this order.
  ACUITY_DEVICE static Partial MergeStates(const float* slots, int64_t stride, int parts) {
    const int lane = prim::LaneIndex();
    Partial total;
    for (int p = lane; p < parts; p += prim::kWarpSize) {
      total.softmax.m = prim::Max(total.softmax.m, slots[p * stride]);
    }
    for (int mask = prim::kWarpSize / 2; mask > 0; mask /= 2) {
      total.softmax.m = prim::Max(total.softmax.m, prim::ShuffleXor(total.softmax.m, mask));
    }
    for (int p = lane; p < parts; p += prim::kWarpSize)
      Add(LoadPartial(slots + p * stride), &total);
    for (int mask = prim::kWarpSize / 2; mask > 0; mask /= 2) {
      total.softmax.l += prim::ShuffleXor(total.softmax.l, mask);
      total.softmax.t += prim::ShuffleXor(total.softmax.t, mask);
      total.peak = prim::Max(total.peak, prim::ShuffleXor(total.peak, mask));
    }
    return total;
  }
};

}  // namespace acuity::kernels::cuda
