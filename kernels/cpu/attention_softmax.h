// The online softmax of one row over one tile of keys (see attention_stats.h). Include only from
// per-ISA translation units (see simd.h).
#pragma once

#include "kernels/attention_stats.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

// Keys of a tile: [begin, end) within [0, kKeyTile].
struct TileRange {
  int begin, end;
  bool empty() const { return begin >= end; }
  bool full() const { return begin == 0 && end == kKeyTile; }
};

// tanh(x), absolute error < 2e-7.
inline Vec Tanh(Vec x) {
  const Vec magnitude = Max(x, -x);
  const Vec e = Exp2(magnitude * Broadcast(-2.0f * kLog2E));
  const Vec t = (Broadcast(1.0f) - e) / (Broadcast(1.0f) + e);
  return x < Vec{} ? -t : t;
}

// Of keys first, first + 1, ...: which are visible.
inline IVec Visible(TileRange range, int first) {
  IVec key;
  for (int i = 0; i < kLanes; ++i) key[i] = first + i;
  return (key >= range.begin) & (key < range.end);
}

// Turns a row's products q k into its final logits, in log2 units, and returns the largest. Keys
// outside `visible` get kMinusInfinity.
template <bool kMasked>
inline float FinalLogits(float scale, float cap, TileRange visible, float* logits) {
  const Vec c = Broadcast(cap > 0 ? scale / (cap * kLog2E) : scale);
  Vec highest = Broadcast(kMinusInfinity);
  for (int j = 0; j < kKeyTile; j += kLanes) {
    Vec z = Load(logits + j) * c;
    if (cap > 0) z = Tanh(z) * Broadcast(cap * kLog2E);
    if constexpr (kMasked) z = Visible(visible, j) ? z : Broadcast(kMinusInfinity);
    Store(logits + j, z);
    highest = Max(highest, z);
  }
  return ReduceMax(highest);
}

// Moves a row's state, and what it has of the output, to a maximum above its own.
inline void RaiseMaximum(float m, int head_dim, SoftmaxState& state, float* out) {
  const bool first = state.l == 0;
  const float a = Rescale(state, m);
  if (first) return;
  for (int d = 0; d < head_dim; d += kLanes) Store(out + d, Load(out + d) * Broadcast(a));
}

// Takes final logits, none of them above state.m, into the state and leaves the probabilities in
// their place: 0 outside `visible`.
template <bool kMasked, bool kStats>
inline void Exponentiate(TileRange visible, float* logits, SoftmaxState& state) {
  const Vec m = Broadcast(state.m);
  Vec l = {}, t = {};
  for (int j = 0; j < kKeyTile; j += kLanes) {
    const Vec u = Load(logits + j) - m;
    Vec p = Exp2(u);
    if constexpr (kMasked) p = Visible(visible, j) ? p : Vec{};
    l += p;
    if constexpr (kStats) t = MulAdd(p, u, t);
    Store(logits + j, p);
  }
  state.l += ReduceAdd(l);
  if constexpr (kStats) state.t += ReduceAdd(t);
}

// Takes one row's products q k of a tile into its state and leaves the probabilities in their
// place. `visible` is not empty. Keys outside of it get probability 0, whatever their products
// hold.
template <bool kMasked, bool kStats>
inline void SoftmaxTile(float scale, float cap, TileRange visible, int head_dim, float* logits,
                        SoftmaxState& state, float* out) {
  const float tile_max = FinalLogits<kMasked>(scale, cap, visible, logits);
  if (tile_max > state.m) RaiseMaximum(tile_max, head_dim, state, out);
  Exponentiate<kMasked, kStats>(visible, logits, state);
}

}  // namespace
}  // namespace acuity::kernels
