// A block of the GEMM's output from register tiles, for one instruction set: included once by each
// gemm_<isa>.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/gemm_tile.h"

namespace acuity::kernels {
namespace {

// Scratch for widened panels, on the worker's stack: with the rows of x it stays in L2, of which
// CPUs with AVX-512 have 1 MiB or more, the others 512 KiB.
constexpr int64_t kScratchFloats = int64_t{kLanes == 16 ? 96 : 32} << 10;
// Widening costs a third of a tile and saves each tile a twelfth; with AVX-512, whose tiles are
// quicker and whose scratch is L2's to write, two tiles and a sixth.
constexpr int64_t kMinTilesToWiden = kLanes == 16 ? 14 : 6;
// A task's rows of x stay in L2 while its panels stream through. With AVX-512 they come from L3 in
// time (kPrefetchRows), and more rows share what widening costs.
constexpr int64_t kRowBlockBytes = int64_t{kLanes == 16 ? 512 : 256} << 10;
constexpr int64_t kTaskWeightBytes = int64_t{kLanes == 16 ? 128 : 64} << 10;
// Whether a row of tiles runs over all panels that fit into scratch, so that it reads its x once.
constexpr bool kSideBySide = kLanes == 16;

// kRows rows against panels [args.panel, panel_end), widest tiles first.
template <typename Weights, int kRows, int kPanels = PanelsFor(kRows)>
void TileRow(TileArgs args, int64_t panel_end) {
  for (; args.panel + kPanels <= panel_end; args.panel += kPanels) {
    Tile<Weights, kRows, kPanels>(args);
    args.weights = static_cast<const typename Weights::Word*>(args.weights) +
                   kPanels * PanelWords<Weights>(*args.params);
  }
  if constexpr (kPanels > 1) {
    if (args.panel < panel_end) TileRow<Weights, kRows, kPanels / 2>(args, panel_end);
  }
}

// Calls TileRow for a number of rows known at run time.
template <typename Weights, int kRows = kMaxRows>
void TileRows(int rows, const TileArgs& args, int64_t panel_end) {
  if (rows == kRows) {
    TileRow<Weights, kRows>(args, panel_end);
  } else if constexpr (kRows > 1) {
    TileRows<Weights, kRows - 1>(rows, args, panel_end);
  }
}

// How the rows of a block are split over the fewest tiles, evenly (7 is 4 + 3, not 6 + 1): a short
// tile has too few FMA chains.
struct RowSplit {
  explicit RowSplit(int64_t rows)
      : tiles((rows + kMaxRows - 1) / kMaxRows), shorter(rows / tiles), taller(rows % tiles) {}
  int64_t tiles;
  int64_t shorter;  // rows of the last tiles
  int64_t taller;   // this many first tiles have one row more
};

// Every row of the split against panels [args.panel, panel_end).
template <typename Weights>
void TileColumn(const RowSplit& split, TileArgs args, int64_t panel_end) {
  for (int64_t t = 0; t < split.tiles; ++t) {
    const int64_t height = split.shorter + (t < split.taller ? 1 : 0);
    TileRows<Weights>(static_cast<int>(height), args, panel_end);
    args.row += height;
  }
}

// The weights of one bfloat16 panel as float32.
void WidenPanel(const uint32_t* words, int64_t k, float* out) {
  for (int64_t i = 0; i < k; ++i, out += kPanel) {
    const uint32_t* pair = words + i / 2 * kPanel;
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const uint32_t* p = pair + v * kLanes;
      Store(out + v * kLanes, i % 2 == 0 ? BFloat16Weights::Low(p) : BFloat16Weights::High(p));
    }
  }
}

// As TileColumn<BFloat16Weights>, over a widened copy of the panels.
[[gnu::noinline]] void WidenedTileColumn(const RowSplit& split, TileArgs args, int64_t panel_end) {
  alignas(64) float scratch[kScratchFloats];
  const int64_t k = args.params->weight.k;
  const auto* words = static_cast<const uint32_t*>(args.weights);
  float* out = scratch;
  for (int64_t panel = args.panel; panel < panel_end; ++panel, out += kPanel * k) {
    WidenPanel(words, k, out);
    words += PanelWords<BFloat16Weights>(*args.params);
  }
  args.weights = scratch;
  TileColumn<Float32Weights>(split, args, panel_end);
}

template <typename Weights>
void Block(const GemmParams& params, int64_t row_begin, int64_t row_end, int64_t panel_begin,
           int64_t panel_end) {
  const RowSplit split(row_end - row_begin);
  const int64_t width = PanelsFor(static_cast<int>(split.shorter));
  const int64_t floats = width * kPanel * params.weight.k;
  const int64_t fitting = floats > 0 ? kScratchFloats / floats : 0;
  const bool widen = Weights::kDepth == 2 && split.tiles >= kMinTilesToWiden && fitting > 0;
  const int64_t step = kSideBySide && fitting > 1 ? fitting * width : width;
  for (int64_t panel = panel_begin; panel < panel_end; panel += step) {
    const int64_t end = panel + step < panel_end ? panel + step : panel_end;
    const auto* weights = static_cast<const typename Weights::Word*>(params.weight.data) +
                          panel * PanelWords<Weights>(params);
    const TileArgs args{&params, row_begin, panel, weights};
    if (widen) {
      WidenedTileColumn(split, args, end);
    } else {
      TileColumn<Weights>(split, args, end);
    }
  }
}

void RunBlock(const GemmParams& params, int64_t row_begin, int64_t row_end, int64_t panel_begin,
              int64_t panel_end) {
  if (params.weight.dtype == DType::kBFloat16) {
    Block<BFloat16Weights>(params, row_begin, row_end, panel_begin, panel_end);
  } else {
    Block<Float32Weights>(params, row_begin, row_end, panel_begin, panel_end);
  }
}

}  // namespace
}  // namespace acuity::kernels
