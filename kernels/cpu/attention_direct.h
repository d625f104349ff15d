// The two multiplications of attention for one block of rows, straight from the pages: where a tile
// is used once (decoding), packing it first would cost more than the arithmetic. Every element is
// the same chain of MulAdd as in attention_blocks.h, so the bits are the same. Not inlined, like
// blocks: one copy for all head dims. Include only from per-ISA translation units (see simd.h).
#pragma once

#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

// logits[r, j] = sum_d q[r, d] keys[j][d] for j in [begin, end) and some neighbours; row strides
// head_dim, kKeyTile.
template <int kRows, typename T>
[[gnu::noinline]] void DirectLogits(const T* const* keys, int begin, int end, int head_dim,
                                    const float* q, float* logits) {
  for (int key = begin / kLanes * kLanes; key < end; key += kLanes) {
    Vec acc[kRows] = {};
    for (int d = 0; d < head_dim; d += kGathered<T>) {
      Vec words[4];
      GatherTransposed(keys + key, d, words);
#pragma GCC unroll 16
      for (int i = 0; i < kGathered<T>; ++i) {
        const Vec dim = ElementOfWords<T>(words[i / kPerWord<T>], i % kPerWord<T>);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          acc[r] = MulAdd(Broadcast(q[r * head_dim + d + i]), dim, acc[r]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) Store(logits + r * kKeyTile + key, acc[r]);
  }
}

// out[r, d..] += sum_j p[r, j] values[j][d..] for kColumns vectors from dimension d.
template <int kRows, int kColumns, typename T>
[[gnu::noinline]] void DirectColumns(const T* const* values, int begin, int end, int head_dim,
                                     int d, const float* p, float* out) {
  Vec acc[kRows][kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) acc[r][c] = Load(out + r * head_dim + d + c * kLanes);
  }
  for (int key = begin; key < end; ++key) {
    Vec row[kColumns];
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) row[c] = LoadAs(values[key] + d + c * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec x = Broadcast(p[r * kKeyTile + key]);
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) acc[r][c] = MulAdd(x, row[c], acc[r][c]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) Store(out + r * head_dim + d + c * kLanes, acc[r][c]);
  }
}

template <int kRows, typename T>
inline void DirectOutput(const T* const* values, int begin, int end, int head_dim, const float* p,
                         float* out) {
  // As many columns as leave the accumulators in registers; beside 16 of them, the conversion of
  // bytes needs its own.
  constexpr int kColumns = (kRows == 1 ? 8 : 4) / (sizeof(T) == 1 && kLanes < 16 ? 2 : 1);
  int d = 0;
  for (; d + kColumns * kLanes <= head_dim; d += kColumns * kLanes) {
    DirectColumns<kRows, kColumns>(values, begin, end, head_dim, d, p, out);
  }
  for (; d < head_dim; d += kLanes) {
    DirectColumns<kRows, 1>(values, begin, end, head_dim, d, p, out);
  }
}

// The most rows for which this beats packing (AVX2, 8k keys: 15 % less time at 1 and 3 rows, 4 %
// more at 4).
inline constexpr int kDirectRows = 3;

// Calls function.template operator()<rows>() for 1 <= rows <= kDirectRows.
template <typename Function>
inline void WithRows(int rows, const Function& function) {
  if (rows == 1) return function.template operator()<1>();
  if (rows == 2) return function.template operator()<2>();
  function.template operator()<3>();
}

}  // namespace
}  // namespace acuity::kernels
