// C += A B in register blocks: rows x keys for the logits, rows x dimensions for the outputs. Each
// element of C is one chain of MulAdd over the depth in ascending order, whatever the blocking:
// bits do not depend on how many rows are handled together. Include only from per-ISA translation
// units (see simd.h).
#pragma once

#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

// Accumulators fill the registers less the panel row and one broadcast: 6 x 2 of 16, or 6 x 4 of
// 32, where a broadcast serves more FMAs than in 12 x 2. SSE has no FMA and needs one more for the
// product.
inline constexpr int kBlockRows = kLanes == 4 ? 4 : 6;

struct BlockArgs {
  const float* a;  // [rows, depth], row stride a_stride
  int64_t a_stride;
  const float* b;  // [panels, depth, panel]; panel stride b_stride
  int64_t b_stride;
  float* c;  // [rows, panels * panel], row stride c_stride
  int64_t c_stride;
  int depth;
};

// kPanels panels of kVecs vectors at once, kRows rows.
template <int kRows, int kPanels, int kVecs, bool kAccumulate>
[[gnu::noinline]] void Block(const BlockArgs& args) {
  constexpr int kColumns = kPanels * kVecs;
  Vec acc[kRows][kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) {
      acc[r][v] = kAccumulate ? Load(args.c + r * args.c_stride + v * kLanes) : Vec{};
    }
  }
  const float* a = args.a;
  const float* b = args.b;
  for (int k = 0; k < args.depth; ++k, ++a, b += kVecs * kLanes) {
    Vec row[kColumns];
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) {
      row[v] = Load(b + v / kVecs * args.b_stride + v % kVecs * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec x = Broadcast(a[r * args.a_stride]);
#pragma GCC unroll 16
      for (int v = 0; v < kColumns; ++v) acc[r][v] = MulAdd(x, row[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) Store(args.c + r * args.c_stride + v * kLanes, acc[r][v]);
  }
}

// One panel, 1 <= rows <= kBlockRows.
template <int kVecs, bool kAccumulate, int kRows = kBlockRows>
inline void PanelBlock(int rows, const BlockArgs& args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return PanelBlock<kVecs, kAccumulate, kRows - 1>(rows, args);
  }
  Block<kRows, 1, kVecs, kAccumulate>(args);
}

// A panel of 1 <= vecs < kPanelVecs vectors.
template <bool kAccumulate, int kVecs = kPanelVecs - 1>
inline void NarrowPanel(int vecs, int rows, const BlockArgs& args) {
  if constexpr (kVecs > 1) {
    if (vecs < kVecs) return NarrowPanel<kAccumulate, kVecs - 1>(vecs, rows, args);
  }
  PanelBlock<kVecs, kAccumulate>(rows, args);
}

// kPanels panels at a time for so few rows that one panel would leave the FMA pipes waiting for
// each other.
template <int kRows, int kPanels, bool kAccumulate>
inline int WidePanels(int panels, const BlockArgs& args) {
  int p = 0;
  for (; p + kPanels <= panels; p += kPanels) {
    BlockArgs wide = args;
    wide.b += p * args.b_stride;
    wide.c += p * kPanel;
    Block<kRows, kPanels, kPanelVecs, kAccumulate>(wide);
  }
  return p;
}

// All columns of 1 <= rows <= kBlockRows rows; `width` is a multiple of kLanes.
template <bool kAccumulate>
inline void RowBlock(int rows, int width, const BlockArgs& args) {
  const int panels = width / kPanel;
  int p = 0;
  if (rows == 1) p = WidePanels<1, 8 / kPanelVecs, kAccumulate>(panels, args);
  if constexpr (kPanelVecs == 2) {
    if (rows == 2) p = WidePanels<2, 2, kAccumulate>(panels, args);
    if (rows == 3) p = WidePanels<3, 2, kAccumulate>(panels, args);
  }
  BlockArgs panel = args;
  panel.b += p * args.b_stride;
  panel.c += p * kPanel;
  for (; p < panels; ++p, panel.b += args.b_stride, panel.c += kPanel) {
    PanelBlock<kPanelVecs, kAccumulate>(rows, panel);
  }
  const int vecs = width % kPanel / kLanes;
  if (vecs > 0) NarrowPanel<kAccumulate>(vecs, rows, panel);
}

}  // namespace
}  // namespace acuity::kernels
