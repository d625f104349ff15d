// Ragged causal prefill: a block takes up to 64 packed rows of one KV head, sixteen a warp, against
// the keys that they see between them (or one split of those). All warps read the same tiles of K
// and V; one barrier a tile.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention_widen.cuh"

namespace acuity::kernels::cuda {

template <Variant kV>
struct PrefillKernel {
  using Args = AttentionArgs;
  static constexpr int kHeadDim = kV.head_dim;
  static constexpr int kThreads = kPrefillWarps * prim::kWarpSize;
  static constexpr int kMinBlocksPerSm = kHeadDim == 256 ? 1 : 2;
  static constexpr int kStages = kPrefillStages;
  // Logits that a warp holds at once: O of head_dim 256 leaves registers for a quarter of a tile.
  static constexpr int kStepKeys = kHeadDim == 256 ? kTileKeys / 4 : kTileKeys;
  // 8-bit tiles are widened first: products read one tile of float16, rewritten for each.
  static constexpr bool kWidens = kV.type == DType::kFloat8;
  static constexpr Variant kProducts = kWidens ? Widened(kV) : kV;
  using Layout = TileLayout<kProducts>;
  using Pieces = std::conditional_t<kWidens, OwnPieces<kV, kThreads>, SharedPieces<kV, kThreads>>;
  static constexpr int kTileHalves = kTileKeys * Layout::kRowHalves;
  static constexpr int kCopiedHalves = kTileKeys * TileLayout<kV>::kRowHalves;

  ACUITY_DEVICE static void Run(const Args& args) {
    const int index = static_cast<int>(prim::BlockIndex().x);
    if (index >= *args.count) return;
    const AttentionTask task = args.tasks[index];
    const SequenceRows seq = RowsOf(args.params, task);
    const int32_t first_key = task.key_begin / kTileKeys * kTileKeys;
    const int tiles = (task.key_end - first_key + kTileKeys - 1) / kTileKeys;
    for (int i = 0; i < kStages - 1; ++i) CopyStage(args, task, first_key, tiles, i);

    const int packed = FirstRow();
    const PackedRow rows[2] = {MakeRow(args.params, task, seq, packed),
                               MakeRow(args.params, task, seq, packed + 8)};
    const float scales[2] = {LogitScale(args.params, rows[0]), LogitScale(args.params, rows[1])};
    RowState states[2] = {StartRow<kProducts>(args.params, scales[0]),
                          StartRow<kProducts>(args.params, scales[1])};
    Queries<kProducts> queries;
    queries.Load(args.params, rows, scales, QueryMemory());
    FragmentC out[kHeadDim / 8] = {};

    // Tiles that every row of the block sees whole lie between the last row's first key and the
    // first row's last; a window masks tiles before them, causality those behind.
    const int32_t full_begin = FirstVisible(args.params, seq.first_position + task.row_end);
    const int32_t full_end = seq.first_position + task.row_begin + 1;
    int i = 0;
    for (; i < tiles && first_key + i * kTileKeys < full_begin; ++i) {
      Step<true>(args, task, first_key, tiles, i, rows, queries, states, out);
    }
    for (; i < tiles && first_key + (i + 1) * kTileKeys <= full_end; ++i) {
      Step<false>(args, task, first_key, tiles, i, rows, queries, states, out);
    }
    for (; i < tiles; ++i) {
      Step<true>(args, task, first_key, tiles, i, rows, queries, states, out);
    }
    prim::WaitCopies<0>();
    ACUITY_UNROLL
    for (int h = 0; h < 2; ++h) StoreRow<kProducts>(args, FirstRow() + 8 * h, h, states[h], out);
  }

 private:
  // The lane's first packed row; the other one is eight further on.
  ACUITY_DEVICE static int FirstRow() {
    return prim::WarpIndex() * kWarpRows + prim::LaneIndex() / 4;
  }
  ACUITY_DEVICE static Shared<uint16_t> QueryMemory() {
    return prim::SharedMemory<uint16_t>() +
           (PrefillRingBytes(kHeadDim, kV.type) / 2 + prim::WarpIndex() * kWarpRows * kHeadDim);
  }
  // Where tile i is copied to, K then V: [kStages, 2, kTileKeys, kRowHalves], or the one place of
  // tiles that are widened.
  ACUITY_DEVICE static Shared<uint16_t> Stage(int i) {
    return prim::SharedMemory<uint16_t>() + (kWidens ? 0 : i % kStages * 2 * kTileHalves);
  }
  // Where products read it.
  ACUITY_DEVICE static Shared<uint16_t> Tile(int i) {
    return kWidens ? prim::SharedMemory<uint16_t>() + 2 * kCopiedHalves : Stage(i);
  }

  // Also where there is no tile i: a group of copies belongs to every step.
  ACUITY_DEVICE static void CopyStage(const Args& args, const AttentionTask& task,
                                      int32_t first_key, int tiles, int i) {
    if (i < tiles) {
      const RaggedBatch& batch = args.params.batch;
      const int32_t* table =
          batch.block_tables + static_cast<int64_t>(task.seq) * batch.block_table_stride;
      CopyTile<kV, kTileKeys, Pieces>(
          args.params, task, first_key + i * kTileKeys, prim::ThreadIndex(),
          [table, &args](int32_t key) { return table[key >> args.page_shift]; }, Stage(i),
          Stage(i) + kCopiedHalves);
    }
    prim::CommitCopies();
  }

  template <bool kMasked>
  ACUITY_DEVICE static void Step(const Args& args, const AttentionTask& task, int32_t first_key,
                                 int tiles, int i, const PackedRow (&rows)[2],
                                 const Queries<kProducts>& queries, RowState (&states)[2],
                                 FragmentC (&out)[kHeadDim / 8]) {
    if constexpr (kV.mutation != Mutation::kMissingCopyWait) prim::WaitCopies<kStages - 2>();
    if constexpr (kV.mutation != Mutation::kMissingBarrier) prim::BlockSync();
    // Tile i is there for all, and all are behind tile i - 1, whose place is free.
    if constexpr (kWidens) {
      Pieces::Widen(prim::ThreadIndex(), Stage(i), Tile(i));
      Pieces::Widen(prim::ThreadIndex(), Stage(i) + kCopiedHalves, Tile(i) + kTileHalves);
    }
    CopyStage(args, task, first_key, tiles, i + kStages - 1);
    if constexpr (kWidens && kV.mutation != Mutation::kMissingBarrier) prim::BlockSync();
    ACUITY_NO_UNROLL
    for (int key = 0; key < kTileKeys; key += kStepKeys) {
      const Shared<const uint16_t> keys = Tile(i) + key * Layout::kRowHalves;
      FragmentC logits[kStepKeys / 8];
      MultiplyKeys<kProducts, kStepKeys>(queries, keys, logits);
      OnlineSoftmax<kProducts, kStepKeys, kMasked>(
          args.params, rows, first_key + i * kTileKeys + key, states, logits, out);
      AddValues<kProducts, kStepKeys>(logits, keys + kTileHalves, out);
    }
  }
};

}  // namespace acuity::kernels::cuda
