// Brings a tile of keys or values out of the pages, converted to float32, in the order in which the
// multiplications read them. Include only from per-ISA translation units (see simd.h).
#pragma once

#include <utility>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

// A panel is kPanelVecs vectors wide; when the width of a tile is not a multiple of it, the last is
// narrower.
inline constexpr int kPanelVecs = kLanes == 16 ? 4 : 2;
inline constexpr int kPanel = kPanelVecs * kLanes;

// Stands for a key that may not be read: every element is 0.
alignas(64) constexpr float kZeroRow[kMaxHeadDim] = {};

inline Vec LoadAs(const float* p) { return Load(p); }
inline Vec LoadAs(const uint16_t* p) { return LoadBFloat16(p); }
inline Vec LoadAs(const uint8_t* p) { return LoadFloat8(p); }

// Elements in 4 bytes, and in the 16 that are gathered of a key at a time: what divides head_dim.
template <typename T>
inline constexpr int kPerWord = 4 / sizeof(T);
template <typename T>
inline constexpr int kGathered = 4 * kPerWord<T>;

// Element i of the kPerWord<T> in each lane.
template <typename T>
inline Vec ElementOfWords(Vec words, int i) {
  if constexpr (sizeof(T) == 4) return words;
  if constexpr (sizeof(T) == 2)
    return (Vec)(i == 0 ? (UVec)words << 16 : (UVec)words & 0xffff0000u);
  if constexpr (sizeof(T) == 1) return Float8At20(((IVec)words << (24 - 8 * i)) >> 4);
}

inline Quad LoadQuad(const void* p) { return (Quad)_mm_loadu_ps(static_cast<const float*>(p)); }

// 16 bytes from dimension `dim` of keys first, first + 4, first + 8, ...: one 128-bit lane per key.
template <typename T>
inline Vec GatherQuads(const T* const* keys, int first, int dim) {
  const Quad a = LoadQuad(keys[first] + dim);
  if constexpr (kLanes == 4) {
    return (Vec)a;
  } else {
    const Quad b = LoadQuad(keys[first + 4] + dim);
    const Octet ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
    if constexpr (kLanes == 8) {
      return (Vec)ab;
    } else {
      const Quad c = LoadQuad(keys[first + 8] + dim), d = LoadQuad(keys[first + 12] + dim);
      const Octet cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7);
      return (Vec)__builtin_shufflevector(ab, cd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                                          15);
    }
  }
}

// Each 128-bit lane of the result takes these four elements of the same lane: 0..3 of a, 4..7 of b.
template <int i0, int i1, int i2, int i3, int... kLane>
inline Vec ShuffleQuads(Vec a, Vec b, std::integer_sequence<int, kLane...>) {
  constexpr int kPick[] = {i0, i1, i2, i3};
  return __builtin_shufflevector(
      a, b, (kLane / 4 * 4 + kPick[kLane % 4] % 4 + (kPick[kLane % 4] >= 4 ? kLanes : 0))...);
}
template <int i0, int i1, int i2, int i3>
inline Vec ShuffleQuads(Vec a, Vec b) {
  return ShuffleQuads<i0, i1, i2, i3>(a, b, std::make_integer_sequence<int, kLanes>());
}
inline Vec UnpackLow(Vec a, Vec b) { return ShuffleQuads<0, 4, 1, 5>(a, b); }
inline Vec UnpackHigh(Vec a, Vec b) { return ShuffleQuads<2, 6, 3, 7>(a, b); }
inline Vec LowPairs(Vec a, Vec b) { return ShuffleQuads<0, 1, 4, 5>(a, b); }
inline Vec HighPairs(Vec a, Vec b) { return ShuffleQuads<2, 3, 6, 7>(a, b); }

// words[i][lane] = the 4 bytes of keys[lane] from dimension dim + i * kPerWord<T>, kLanes keys.
template <typename T>
inline void GatherTransposed(const T* const* keys, int dim, Vec* words) {
  const Vec a = GatherQuads(keys, 0, dim), b = GatherQuads(keys, 1, dim);
  const Vec c = GatherQuads(keys, 2, dim), d = GatherQuads(keys, 3, dim);
  const Vec ab_low = UnpackLow(a, b), ab_high = UnpackHigh(a, b);
  const Vec cd_low = UnpackLow(c, d), cd_high = UnpackHigh(c, d);
  words[0] = LowPairs(ab_low, cd_low);
  words[1] = HighPairs(ab_low, cd_low);
  words[2] = LowPairs(ab_high, cd_high);
  words[3] = HighPairs(ab_high, cd_high);
}

// packed[(panel * head_dim + d) * kPanel + lane] = keys[panel * kPanel + lane][d]; kKeyTile keys.
template <typename T>
inline void PackKeys(const T* const* keys, int head_dim, float* packed) {
  for (int key = 0; key < kKeyTile; key += kLanes) {
    float* to = packed + key / kPanel * kPanel * head_dim + key % kPanel;
    for (int d = 0; d < head_dim; d += kGathered<T>) {
      Vec words[4];
      GatherTransposed(keys + key, d, words);
#pragma GCC unroll 16
      for (int i = 0; i < kGathered<T>; ++i, to += kPanel) {
        Store(to, ElementOfWords<T>(words[i / kPerWord<T>], i % kPerWord<T>));
      }
    }
  }
}

// Panel p (dimensions from p * kPanel, `width` of them: kPanel or what is left) starts at p *
// kPanel * kKeyTile: packed[p * kPanel * kKeyTile + key * width + lane] = values[key][p * kPanel +
// lane].
template <typename T>
inline void PackValues(const T* const* values, int head_dim, float* packed) {
  const int wide = head_dim / kPanel * kPanel;
  for (int key = 0; key < kKeyTile; ++key) {
    const T* from = values[key];
    float* to = packed + key * kPanel;
    for (int d = 0; d < wide; d += kPanel, to += kPanel * kKeyTile) {
      for (int v = 0; v < kPanel; v += kLanes) Store(to + v, LoadAs(from + d + v));
    }
    to = packed + wide * kKeyTile + key * (head_dim - wide);
    for (int d = wide; d < head_dim; d += kLanes) Store(to + d - wide, LoadAs(from + d));
  }
}

}  // namespace
}  // namespace acuity::kernels
