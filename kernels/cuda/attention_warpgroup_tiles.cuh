// The tiles of K and V that attention_warpgroup.cuh multiplies: where they lie in shared memory,
// the barriers that hand them over, and the warpgroup that copies them out of the pages.
//
// A tile of K and a tile of V each have kWarpgroupStages places, and two barriers a place: "full",
// at which the copies arrive, and "free", at which the warps that multiply do. Use n of a place is
// phase n of both. docs/kernels.md draws it, and says why pages are copied in 16-byte pieces.
#pragma once

#include "kernels/cuda/attention_state.cuh"
#include "kernels/cuda/prim/warpgroup.h"

namespace acuity::kernels::cuda {

enum Operand { kKeyTile, kValueTile };

// Of a task: tile i begins at key first_key + i * kWarpgroupTileKeys.
struct KeyTiles {
  int32_t first_key = 0;
  int count = 0;
};

// Queries of each warpgroup that multiplies, places of K, places of V, full, free.
template <Variant kV>
struct WarpgroupTiles {
  static constexpr int kHeadDim = kV.head_dim;
  static constexpr int kKeys = kWarpgroupTileKeys, kStages = kWarpgroupStages;
  static constexpr int kStrips = kKeys / kStripKeys;
  static constexpr int kTileElements = kKeys * kHeadDim;

  ACUITY_DEVICE static Shared<uint16_t> QueryMemory(int consumer) {
    return prim::SharedMemory<uint16_t>() + consumer * kConsumerRows * kHeadDim;
  }
  ACUITY_DEVICE static Shared<uint16_t> Tile(int operand, int i) {
    return prim::SharedMemory<uint16_t>() +
           (kWarpgroupPrefillRows * kHeadDim + (operand * kStages + i % kStages) * kTileElements);
  }
  ACUITY_DEVICE static Shared<uint64_t> Barriers() {
    return Tile(kValueTile + 1, 0).template As<uint64_t>();
  }
  ACUITY_DEVICE static Shared<uint64_t> Full(int operand, int i) {
    return Barriers() + (operand * kStages + i % kStages);
  }
  ACUITY_DEVICE static Shared<uint64_t> Free(int operand, int i) {
    return Full(operand, i) + 2 * kStages;
  }
  // Of the phase that tile i fills.
  ACUITY_DEVICE static uint32_t Parity(int i) { return static_cast<uint32_t>(i / kStages) & 1; }

  ACUITY_DEVICE static void InitBarriers() {
    constexpr int kCopying =
        kV.mutation == Mutation::kWrongArrivals ? prim::kWarpgroupSize - 32 : prim::kWarpgroupSize;
    for (int i = 0; i < 2 * kStages; ++i) {
      prim::InitBarrier(Barriers() + i, kCopying);
      prim::InitBarrier(Barriers() + (2 * kStages + i), kConsumers * prim::kWarpgroupWarps);
    }
  }

  ACUITY_DEVICE static KeyTiles TilesOf(const AttentionTask& task) {
    const int32_t first_key = task.key_begin / kKeys * kKeys;
    return {first_key, (task.key_end - first_key + kKeys - 1) / kKeys};
  }

  // What the warpgroup that copies does.
  ACUITY_DEVICE static void Produce(const AttentionArgs& args, const AttentionTask& task) {
    const KeyTiles tiles = TilesOf(task);
    int32_t page = PageOfStrip<kStrips>(args, task, tiles.first_key);
    ACUITY_NO_UNROLL
    for (int i = 0; i < tiles.count; ++i) {
      const int32_t first_key = tiles.first_key + i * kKeys;
      const int32_t next_page = PageOfStrip<kStrips>(args, task, first_key + kKeys);
      ACUITY_NO_UNROLL
      for (int operand = kKeyTile; operand <= kValueTile; ++operand) {
        if constexpr (kV.mutation != Mutation::kNoFreeWait) {
          prim::WaitBarrier(Free(operand, i), Parity(i) ^ 1);
        }
        const void* pool = operand == kKeyTile ? args.params.k_pages : args.params.v_pages;
        CopyTile(args.params, task, pool, first_key, page, Tile(operand, i));
        prim::ArriveWhenCopied(Full(operand, i));
      }
      page = next_page;
    }
  }

 private:
  // Rows outside of [key_begin, key_end) become zeroes, as in attention_tile.cuh.
  ACUITY_DEVICE static void CopyTile(const AttentionParams& params, const AttentionTask& task,
                                     const void* pool, int32_t first_key, int32_t page_of_strip,
                                     Shared<uint16_t> to) {
    constexpr int kChunks = kHeadDim / 8, kRows = prim::kWarpgroupSize / kChunks;  // at a time
    static_assert(kStripKeys % kRows == 0 && kRows % 8 == 0);
    const int thread = prim::ThreadIndex() % prim::kWarpgroupSize;
    const int chunk = thread % kChunks, first_row = thread / kChunks;
    const int page_size = params.shape.block_size;
    const auto* from = static_cast<const uint16_t*>(pool) + chunk * 8;
    // Rows that are eight apart have their chunks in the same places.
    to = to + (kV.mutation == Mutation::kPlainCopy
                   ? (chunk / 8 * kKeys + first_row) * 64 + chunk % 8 * 8
                   : prim::PanelOffset(kKeys, first_row, chunk));
    ACUITY_NO_UNROLL
    for (int strip = 0; strip < kStrips; ++strip) {
      const int64_t page = prim::Shuffle(page_of_strip, strip);
      const int64_t slot = (page * params.shape.num_kv_heads + task.kv_head) * page_size;
      ACUITY_UNROLL
      for (int i = 0; i < kStripKeys; i += kRows) {
        const int row = strip * kStripKeys + i;
        const int32_t key = first_key + row + first_row;
        const bool valid = key >= task.key_begin && key < task.key_end;
        const int64_t at = valid ? (slot + (key & (page_size - 1))) * kHeadDim : 0;
        prim::CopyAsync((to + row * 64).template As<prim::Bits128>(), from + at, valid);
      }
    }
  }
};

}  // namespace acuity::kernels::cuda
