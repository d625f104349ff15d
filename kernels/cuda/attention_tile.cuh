// What a warp does with sixteen packed rows and a tile of keys: S = Q K^T on tensor cores, mask,
// online softmax in registers, O += P V. Shared by decoding and prefill, 16-bit and 8-bit pages.
#pragma once

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/float8.cuh"

namespace acuity::kernels::cuda {

// A tile in shared memory: a row is one key, in chunks of 16 bytes; addresses count elements of 16
// bits, as ldmatrix does, whatever they hold. Chunk c of row r lies at place c ^ (r & 7): the eight
// rows that one phase of ldmatrix reads at the same c, and the eight chunks that a copy writes of
// one row, are in eight different groups of four banks. Rows of 64 bytes lie two to a line of 128:
// c ^ (r / 2 & 3) of either half.
template <Variant kV>
struct TileLayout {
  static constexpr int kChunkHalves = 8;
  static constexpr int kRowHalves = kV.head_dim * static_cast<int>(SizeOf(TileType(kV))) / 2;
  static constexpr int kChunks = kRowHalves / kChunkHalves;

  ACUITY_DEVICE static int Offset(int key, int chunk) {
    const int place = kChunks < 8 ? chunk ^ (key / 2 & 3) : chunk ^ (key & 7);
    return key * kRowHalves + place * kChunkHalves;
  }
};

// Sixteens of dimensions in a pair of chunks, which is what one ldmatrix reads of sixteen keys.
template <DType kTile>
inline constexpr int kSixteens = 2 / static_cast<int>(SizeOf(kTile));

// B of Q K^T from four matrices: two chunks of keys 0-7, the same two of keys 8-15. b[s][n]: the
// s-th sixteen dimensions, in the order of LaneDims, of keys 8 n on.
template <DType kTile>
ACUITY_DEVICE void KeyOperands(const uint32_t (&word)[4], FragmentB (&b)[kSixteens<kTile>][2]) {
  ACUITY_UNROLL
  for (int n = 0; n < 2; ++n) {
    if constexpr (kTile == DType::kFloat8) {
      ACUITY_UNROLL
      for (int s = 0; s < 2; ++s) {
        const WidePairs wide = WidenFloat8(word[2 * n + s]);
        b[s][n] = {{wide.even, wide.odd}};
      }
    } else {
      b[0][n] = {{word[2 * n], word[2 * n + 1]}};
    }
  }
}

// B of P V from four matrices, transposed: keys 0-7 and 8-15 of one chunk, the same of the next.
// b[i]: columns as in LaneDims, two halves for sixteen dimensions.
template <DType kTile>
ACUITY_DEVICE void ValueOperands(const uint32_t (&word)[4], FragmentB (&b)[2 * kSixteens<kTile>]) {
  ACUITY_UNROLL
  for (int c = 0; c < 2; ++c) {
    if constexpr (kTile == DType::kFloat8) {
      const WidePairs low = WidenFloat8(word[2 * c]), high = WidenFloat8(word[2 * c + 1]);
      b[2 * c] = {{low.even, high.even}};
      b[2 * c + 1] = {{low.odd, high.odd}};
    } else {
      b[c] = {{word[2 * c], word[2 * c + 1]}};
    }
  }
}

// The sixteen queries of a warp as A fragments, signs folded, dimensions as in LaneDims. In
// registers up to head_dim 128; above, each lane keeps its words in shared memory, [step][lane],
// and takes them from there.
template <Variant kV>
class Queries {
 public:
  static constexpr int kSteps = kV.head_dim / 16;
  static constexpr bool kInRegisters = kV.head_dim <= 128;

  // `rows` are packed rows g and g + 8. `memory` belongs to the warp: kWarpRows * head_dim
  // elements.
  ACUITY_DEVICE void Load(const AttentionParams& params, const PackedRow (&rows)[2],
                          const float (&scales)[2], Shared<uint16_t> memory) {
    memory_ = memory.As<prim::Bits128>() + prim::LaneIndex();
    const QuerySource<kV> source(params, rows, scales);
    ACUITY_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const FragmentA a = source.Fragment(step);
      if constexpr (kInRegisters) {
        fragments_[step] = a;
      } else {
        memory_[step * prim::kWarpSize] = {{a.word[0], a.word[1], a.word[2], a.word[3]}};
      }
    }
  }

  ACUITY_DEVICE FragmentA Fragment(int step) const {
    if constexpr (kInRegisters) {
      return fragments_[step];
    } else {
      const prim::Bits128 bits = memory_[step * prim::kWarpSize];
      return {{bits.word[0], bits.word[1], bits.word[2], bits.word[3]}};
    }
  }

 private:
  FragmentA fragments_[kInRegisters ? kSteps : 1];
  Shared<prim::Bits128> memory_;
};

// logits[j] (rows g, g + 8; keys 8 j + 2t, + 1) = Q K^T over kKeys keys of the tile.
template <Variant kV, int kKeys>
ACUITY_DEVICE void MultiplyKeys(const Queries<kV>& queries, Shared<const uint16_t> keys,
                                FragmentC (&logits)[kKeys / 8]) {
  using Layout = TileLayout<kV>;
  constexpr int kSteps = kSixteens<TileType(kV)>;
  const int lane = prim::LaneIndex(), matrix = lane / 8;
  // Matrices 0 and 1: eight keys, two chunks; 2 and 3: the next eight keys.
  const int key = lane % 8 + matrix / 2 * 8;
  const int chunk = kV.mutation == Mutation::kSwappedMatrices ? 1 - matrix % 2 : matrix % 2;
  ACUITY_UNROLL
  for (int j = 0; j < kKeys / 8; ++j) logits[j] = {};
  ACUITY_UNROLL
  for (int pair = 0; pair < Layout::kChunks / 2; ++pair) {
    FragmentA a[kSteps];
    ACUITY_UNROLL
    for (int s = 0; s < kSteps; ++s) a[s] = queries.Fragment(kSteps * pair + s);
    ACUITY_UNROLL
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t word[4];
      prim::LoadMatrix4(keys + Layout::Offset(16 * j + key, 2 * pair + chunk), word);
      FragmentB b[kSteps][2];
      KeyOperands<TileType(kV)>(word, b);
      ACUITY_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        prim::Mma<OperandOf(kV.type)>(logits[2 * j], a[s], b[s][0]);
        prim::Mma<OperandOf(kV.type)>(logits[2 * j + 1], a[s], b[s][1]);
      }
    }
  }
}

// out[j] (rows g, g + 8; half j % 2 of the lane's dims 16 (j / 2) on) += P V; P is the logits'
// registers, rounded.
template <Variant kV, int kKeys>
ACUITY_DEVICE void AddValues(const FragmentC (&p)[kKeys / 8], Shared<const uint16_t> values,
                             FragmentC (&out)[kV.head_dim / 8]) {
  using Layout = TileLayout<kV>;
  constexpr int kFragments = 2 * kSixteens<TileType(kV)>;
  const int lane = prim::LaneIndex(), matrix = lane / 8;
  // Matrices 0 and 1: keys 0-7 and 8-15, one chunk; 2 and 3: the next chunk.
  const int key = lane % 8 + matrix % 2 * 8, chunk = matrix / 2;
  ACUITY_UNROLL
  for (int step = 0; step < kKeys / 16; ++step) {
    const FragmentA a = WeightsOf<kV>(p[2 * step], p[2 * step + 1]);
    ACUITY_UNROLL
    for (int pair = 0; pair < Layout::kChunks / 2; ++pair) {
      uint32_t word[4];
      prim::LoadMatrix4Transposed(values + Layout::Offset(16 * step + key, 2 * pair + chunk), word);
      FragmentB b[kFragments];
      ValueOperands<TileType(kV)>(word, b);
      ACUITY_UNROLL
      for (int i = 0; i < kFragments; ++i) {
        prim::Mma<OperandOf(kV.type)>(out[kFragments * pair + i], a, b[i]);
      }
    }
  }
}

// Logits to weights 2^(logit - m), states and output moved to the new maxima.
template <Variant kV, int kKeys, bool kMasked>
ACUITY_DEVICE void OnlineSoftmax(const AttentionParams& params, const PackedRow (&rows)[2],
                                 int32_t first_key, RowState (&states)[2],
                                 FragmentC (&logits)[kKeys / 8],
                                 FragmentC (&out)[kV.head_dim / 8]) {
  ACUITY_UNROLL
  for (int h = 0; h < 2; ++h) {
    const float shrink =
        MoveMaximum<kV, kKeys, kMasked>(params, rows[h], first_key, h, states[h], logits);
    ScaleRow(h, shrink, out);
    TakeWeights<kV, kKeys>(h, states[h], logits);
  }
}

// Which pieces of 16 bytes of a tile a thread copies, and where to: one chunk, of every kRows-th
// row.
template <Variant kV, int kThreads>
struct SharedPieces {
  using Layout = TileLayout<kV>;
  static constexpr int kRows = kThreads / Layout::kChunks;  // at a time
  static_assert(kThreads % Layout::kChunks == 0);

  ACUITY_DEVICE static int Chunk(int thread) { return thread % Layout::kChunks; }
  ACUITY_DEVICE static int Row(int thread) { return thread / Layout::kChunks; }
  ACUITY_DEVICE static int Offset(int row, int chunk) { return Layout::Offset(row, chunk); }
};

// Starts copies of kKeys rows of K and V, `first_key` on. Rows outside of
// [key_begin, key_end) become zeroes: what a page holds there may be anything, and NaN times a
// weight of 0 is NaN. `page_of(key)` is the physical page of a key.
template <Variant kV, int kKeys, typename Pieces, typename PageOf>
ACUITY_DEVICE void CopyTile(const AttentionParams& params, const AttentionTask& task,
                            int32_t first_key, int thread, const PageOf& page_of,
                            Shared<uint16_t> keys, Shared<uint16_t> values) {
  using Layout = TileLayout<kV>;
  static_assert(kKeys % Pieces::kRows == 0);
  const int page_size = params.shape.block_size;
  const int chunk = Pieces::Chunk(thread), first_row = Pieces::Row(thread);
  const auto* k = static_cast<const uint16_t*>(params.k_pages) + chunk * Layout::kChunkHalves;
  const auto* v = static_cast<const uint16_t*>(params.v_pages) + chunk * Layout::kChunkHalves;
  ACUITY_UNROLL
  for (int i = 0; i < kKeys; i += Pieces::kRows) {
    const int row = i + first_row;
    const int32_t key = first_key + row;
    const bool valid = key >= task.key_begin && key < task.key_end;
    int64_t from = 0;
    if (valid) {
      const int64_t page = page_of(key);
      const int64_t slot = (page * params.shape.num_kv_heads + task.kv_head) * page_size;
      from = (slot + (key & (page_size - 1))) * Layout::kRowHalves;
    }
    const int to = Pieces::Offset(row, chunk);
    prim::CopyAsync((keys + to).As<prim::Bits128>(), k + from, valid);
    prim::CopyAsync((values + to).As<prim::Bits128>(), v + from, valid);
  }
}

}  // namespace acuity::kernels::cuda
