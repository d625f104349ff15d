// Decoding: a block takes up to sixteen packed rows of one KV head against one split of the keys.
// Its warps share the rows and take sixteen keys of every tile each, through a ring of stages of
// their own: nothing but the final merge of the four partial results needs a barrier.
#pragma once

#include "kernels/cuda/attention_tile.cuh"

namespace acuity::kernels::cuda {

// The sixteen-key strips of a task that one warp takes: strip i begins kTileKeys * i behind the
// first.
struct Strips {
  int32_t first_key = 0;
  int count = 0;
  int32_t page = 0;         // lane i holds strip i's
  Shared<uint16_t> keys;    // [stages, kStripKeys, kRowHalves]
  Shared<uint16_t> values;  // the same
};

template <Variant kV>
struct DecodeKernel {
  using Args = AttentionArgs;
  static constexpr int kHeadDim = kV.head_dim;
  static constexpr int kThreads = kDecodeWarps * prim::kWarpSize;
  static constexpr int kMinBlocksPerSm = kHeadDim == 256 ? 1 : 2;
  static constexpr int kStages = DecodeStages(kHeadDim);
  using Layout = TileLayout<kV>;
  using Dims = LaneDims<TileType(kV)>;
  static constexpr int kStripHalves = kStripKeys * Layout::kRowHalves;
  static_assert(kDecodeSplitKeys / kTileKeys <= prim::kWarpSize, "a lane for each strip's page");

  ACUITY_DEVICE static void Run(const Args& args) {
    const int index = static_cast<int>(prim::BlockIndex().x);
    if (index >= *args.count) return;
    const AttentionTask task = args.tasks[index];
    const SequenceRows seq = RowsOf(args.params, task);
    const Strips strips = MakeStrips(args, task);
    for (int i = 0; i < kStages - 1; ++i) CopyStrip(args, task, strips, i);

    const int g = prim::LaneIndex() / 4;
    const PackedRow rows[2] = {MakeRow(args.params, task, seq, g),
                               MakeRow(args.params, task, seq, g + 8)};
    const float scales[2] = {LogitScale(args.params, rows[0]), LogitScale(args.params, rows[1])};
    RowState states[2] = {StartRow<kV>(args.params, scales[0]),
                          StartRow<kV>(args.params, scales[1])};
    // Every warp holds the same rows: the words that head_dim 256 keeps are the same too.
    Queries<kV> queries;
    queries.Load(args.params, rows, scales, QueryMemory());
    FragmentC out[kHeadDim / 8] = {};

    ACUITY_NO_UNROLL
    for (int i = 0; i < strips.count; ++i) {
      if constexpr (kV.mutation != Mutation::kMissingCopyWait) prim::WaitCopies<kStages - 2>();
      if constexpr (kV.mutation != Mutation::kMissingBarrier) prim::WarpSync();
      // The stage that strip i - 1 was in is free: all lanes are behind it.
      CopyStrip(args, task, strips, i + kStages - 1);
      const int at = i % kStages * kStripHalves;
      const int32_t first_key = strips.first_key + i * kTileKeys;
      FragmentC logits[kStripKeys / 8];
      MultiplyKeys<kV, kStripKeys>(queries, strips.keys + at, logits);
      // Memory is what decoding waits for: masking every strip costs nothing.
      OnlineSoftmax<kV, kStripKeys, true>(args.params, rows, first_key, states, logits, out);
      AddValues<kV, kStripKeys>(logits, strips.values + at, out);
    }
    prim::WaitCopies<0>();
    prim::BlockSync();  // the strips' memory is now free
    StoreWarp(states, out);
    if constexpr (kV.mutation != Mutation::kMissingBarrier) prim::BlockSync();
    MergeWarps(args, task, seq);
  }

 private:
  ACUITY_DEVICE static Shared<uint16_t> QueryMemory() {
    return prim::SharedMemory<uint16_t>() +
           (DecodeRingBytes(kHeadDim, kV.type) / 2 + prim::WarpIndex() * kDecodeRows * kHeadDim);
  }

  ACUITY_DEVICE static Strips MakeStrips(const Args& args, const AttentionTask& task) {
    const int warp = prim::WarpIndex(), lane = prim::LaneIndex();
    const int32_t tile = task.key_begin / kTileKeys * kTileKeys;
    Strips strips;
    strips.first_key = tile + warp * kStripKeys;
    strips.count = (task.key_end - tile + kTileKeys - 1) / kTileKeys;
    const int32_t key = strips.first_key + lane * kTileKeys;
    if (key < task.key_end && key + kStripKeys > task.key_begin) {
      const RaggedBatch& batch = args.params.batch;
      strips.page = batch.block_tables[static_cast<int64_t>(task.seq) * batch.block_table_stride +
                                       (key >> args.page_shift)];
    }
    strips.keys = prim::SharedMemory<uint16_t>() + warp * 2 * kStages * kStripHalves;
    strips.values = strips.keys + kStages * kStripHalves;
    return strips;
  }

  // Also where there is no strip i: a group of copies belongs to every step.
  ACUITY_DEVICE static void CopyStrip(const Args& args, const AttentionTask& task,
                                      const Strips& strips, int i) {
    const int32_t page = prim::Shuffle(strips.page, i % prim::kWarpSize);
    if (i < strips.count) {
      const int at = i % kStages * kStripHalves;
      CopyTile<kV, kStripKeys, SharedPieces<kV, prim::kWarpSize>>(
          args.params, task, strips.first_key + i * kTileKeys, prim::LaneIndex(),
          [page](int32_t) { return page; }, strips.keys + at, strips.values + at);
    }
    prim::CommitCopies();
  }

  // Shared memory of the merge: [warp, row, head_dim] outputs, then [warp, row] states.
  ACUITY_DEVICE static Shared<float> Outputs() { return prim::SharedMemory<float>(); }
  ACUITY_DEVICE static Shared<float> States() {
    return Outputs() + kDecodeWarps * kDecodeRows * kHeadDim;
  }

  ACUITY_DEVICE static void StoreWarp(const RowState (&states)[2],
                                      const FragmentC (&out)[kHeadDim / 8]) {
    const int g = prim::LaneIndex() / 4, t = prim::LaneIndex() % 4;
    ACUITY_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = prim::WarpIndex() * kDecodeRows + g + 8 * h;
      const Partial partial = Gather(states[h]);
      if (t == 0) {
        const Shared<float> to = States() + row * kSlotStateFloats;
        to[0] = partial.softmax.m;
        to[1] = partial.softmax.l;
        to[2] = partial.softmax.t;
        to[3] = partial.peak;
      }
      const Shared<float> to = Outputs() + (row * kHeadDim + Dims::First());
      ACUITY_UNROLL
      for (int j = 0; j < kHeadDim / 8; ++j) {
        ACUITY_UNROLL
        for (int e = 0; e < 2; ++e) {
          to[j / 2 * 16 + Dims::Offset(j % 2, e)] = out[j].value[2 * h + e];
        }
      }
    }
  }

  // Eight threads a row: the four warps' results become one, for the workspace or the output.
  ACUITY_DEVICE static void MergeWarps(const Args& args, const AttentionTask& task,
                                       const SequenceRows& seq) {
    constexpr int kThreadsPerRow = kThreads / kDecodeRows;
    const int packed = prim::ThreadIndex() / kThreadsPerRow;
    const int first = prim::ThreadIndex() % kThreadsPerRow;
    const PackedRow row = MakeRow(args.params, task, seq, packed);
    if (row.row < 0) return;
    Partial parts[kDecodeWarps], total;
    ACUITY_UNROLL
    for (int w = 0; w < kDecodeWarps; ++w) {
      const Shared<float> from = States() + (w * kDecodeRows + packed) * kSlotStateFloats;
      parts[w] = {{from[0], from[1], from[2]}, from[3]};
      total.softmax.m = prim::Max(total.softmax.m, parts[w].softmax.m);
    }
    float weights[kDecodeWarps];
    ACUITY_UNROLL
    for (int w = 0; w < kDecodeWarps; ++w) {
      // A warp without visible keys has accumulated masked ones.
      weights[w] = parts[w].softmax.l != 0 ? Weight(parts[w].softmax.m, total.softmax.m) : 0;
      Add(parts[w], &total);
    }
    const bool split = task.split_slot >= 0;
    float* slot = args.workspace + (split ? task.split_slot + packed : 0) * SlotFloats(kHeadDim);
    float* to = split ? slot + kSlotStateFloats : OutputRow(args.params, row.row, row.head);
    const float factor =
        UnitOf(kV.type) * (split ? 1 : OutputFactor(args.params, row.head, total.softmax));
    if (first == 0) {
      if (split) {
        StorePartial(total, slot);
      } else if (kV.stats) {
        StoreStats(args.params, row.row, row.head, total);
      }
    }
    ACUITY_UNROLL
    for (int d = first; d < kHeadDim; d += kThreadsPerRow) {
      float sum = 0;
      ACUITY_UNROLL
      for (int w = 0; w < kDecodeWarps; ++w) {
        sum += weights[w] * Outputs()[(w * kDecodeRows + packed) * kHeadDim + d];
      }
      to[d] = sum * factor;
    }
  }
};

}  // namespace acuity::kernels::cuda
