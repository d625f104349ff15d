// Prefill's tiles of 8-bit pages: all warps of a block read the same tile, so it becomes float16
// once, in shared memory, and not once in the registers of every warp.
//
// A thread widens the pieces of 16 bytes that it copied itself. Nobody else reads them, so their
// places are free for the next tile as soon as they were read.
#pragma once

#include "kernels/cuda/attention_tile.cuh"

namespace acuity::kernels::cuda {

// Of a tile's keys or values. Eight neighbouring threads have four chunks of two keys: here, and in
// either half of what they become, those lie in eight different groups of four banks.
template <Variant kV, int kThreads>
struct OwnPieces {
  using Narrow = TileLayout<kV>;
  using Wide = TileLayout<Widened(kV)>;
  static constexpr int kChunks = Narrow::kChunks;
  static constexpr int kRows = kThreads / kChunks;  // at a time
  static_assert(kThreads % (2 * kChunks) == 0 && kChunks % 4 == 0);

  ACUITY_DEVICE static int Chunk(int thread) { return thread % 4 + thread / 8 % (kChunks / 4) * 4; }
  ACUITY_DEVICE static int Row(int thread) { return thread / (2 * kChunks) * 2 + thread / 4 % 2; }
  ACUITY_DEVICE static int Offset(int row, int chunk) {
    const int place = kChunks < 8 ? chunk : chunk ^ (row & 1) * 4;
    return row * Narrow::kRowHalves + place * Narrow::kChunkHalves;
  }

  ACUITY_DEVICE static void Widen(int thread, Shared<uint16_t> from, Shared<uint16_t> to) {
    const int first_row = Row(thread), chunk = Chunk(thread);
    ACUITY_UNROLL
    for (int i = 0; i < kTileKeys; i += kRows) {
      const int row = i + first_row;
      const prim::Bits128 bytes = (from + Offset(row, chunk)).template As<prim::Bits128>()[0];
      prim::Bits128 wide[2];
      ACUITY_UNROLL
      for (int w = 0; w < 4; ++w) InOrder(WidenFloat8(bytes.word[w]), &wide[w / 2].word[w % 2 * 2]);
      ACUITY_UNROLL
      for (int half = 0; half < 2; ++half) {
        (to + Wide::Offset(row, 2 * chunk + half)).template As<prim::Bits128>()[0] = wide[half];
      }
    }
  }

 private:
  ACUITY_DEVICE static void InOrder(const WidePairs& pairs, uint32_t* words) {
    const bool plain = kV.mutation == Mutation::kWrongOrder;
    words[0] = plain ? pairs.even : (pairs.even & 0xffff) | pairs.odd << 16;
    words[1] = plain ? pairs.odd : pairs.even >> 16 | (pairs.odd & 0xffff0000);
  }
};

}  // namespace acuity::kernels::cuda
