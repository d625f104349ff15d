// The GEMM of one instruction set: included (through gemm_block.h) by each gemm_<isa>.cc, which
// defines its table.
//
// y[rows, panels] is cut into register tiles. A tile runs the whole of k, in order, with one
// accumulator per output: there is no k-blocking, so a tile's shape cannot change a result. The
// streams (a panel's weights and the rows of x) come from L2, which the FMA rate leaves mostly
// idle: 112 bytes per 24 FMAs of the 6 x 16 AVX2 tile.
//
// bfloat16 weights are widened in registers (one load, a shift and a mask per two vectors), which
// costs a full tile a twelfth of its rate, a sixth with AVX-512, whose shifts take the FMAs' ports.
// A panel that many tiles will read is widened once into scratch instead: the same values in the
// same order, so the same bits.
//
// Calls nothing inline from outside the anonymous namespace: such a copy, compiled for a newer CPU,
// could be the one that other units link to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

constexpr int kVecs = kPanel / kLanes;  // vectors in a panel

// Accumulators in a tile: what the register file holds beside weights and a broadcast (32 registers
// with AVX-512, 16 otherwise).
constexpr int kMaxAccumulators = kLanes == 16 ? 24 : 12;
// With AVX-512 6 rows of 4 panels, not 12 of 2: one broadcast serves four FMAs (100 % of the FMA
// peak from L2 on Ice Lake, where 12 x 2 reaches 83 %).
constexpr int kMaxRows = kLanes == 16 ? 6 : kMaxAccumulators / kVecs;

// Panels in a tile of `rows` rows: at m = 1 four of them make enough independent FMA chains (the
// latency is 4 or 5 cycles, one chain per vector) to outrun DRAM.
constexpr int kMaxPanels = kLanes == 4 ? 2 : 4;
constexpr int PanelsFor(int rows) {
  int panels = kMaxPanels;
  while (panels > 1 && rows * panels * kVecs > kMaxAccumulators) panels /= 2;
  return panels;
}

// Bytes ahead of the weight stream to prefetch. The hardware's prefetchers stop at every 4 KiB
// page.
constexpr int64_t kPrefetchBytes = 1024;
// Whether a tile prefetches the rows of x that the next one reads: an AVX-512 tile is so short that
// L3's latency shows (4 to 5 % on Ice Lake).
constexpr bool kPrefetchRows = kLanes == 16;
constexpr int kLineFloats = 16;

struct Float32Weights {
  using Word = float;
  static constexpr int kDepth = 1;  // k per step
  static Vec Low(const float* p) { return Load(p); }
  static Vec High(const float* p) { return Load(p); }  // not reached
};

struct BFloat16Weights {
  using Word = uint32_t;
  static constexpr int kDepth = 2;
  static IVec Bits(const uint32_t* p) {
    IVec bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return bits;
  }
  static Vec Low(const uint32_t* p) { return (Vec)(Bits(p) << 16); }
  static Vec High(const uint32_t* p) { return (Vec)(Bits(p) & static_cast<int32_t>(0xffff0000u)); }
};

// Where a tile is in the problem.
struct TileArgs {
  const GemmParams* params = nullptr;
  int64_t row = 0;
  int64_t panel = 0;
  const void* weights = nullptr;  // of `panel`, the following panels behind them
};

// Words from one panel to the next.
template <typename Weights>
int64_t PanelWords(const GemmParams& params) {
  return kPanel * ((params.weight.k + Weights::kDepth - 1) / Weights::kDepth);
}

// acc[r][v] += x[r, k] * w[k, v] for one k, whose vectors `load` gives.
template <int kRows, int kPanels, typename LoadFn>
inline void MulAddStep(const float* const* x, int64_t k, LoadFn load,
                       Vec (&acc)[kRows][kPanels * kVecs]) {
  Vec w[kPanels * kVecs];
#pragma GCC unroll 16
  for (int v = 0; v < kPanels * kVecs; ++v) w[v] = load(v);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Vec value = Broadcast(x[r][k]);
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) acc[r][v] = MulAdd(value, w[v], acc[r][v]);
  }
}

// Adds bias and y's old value, and stores one panel of one row, of which `columns` exist.
[[gnu::noinline]] void StoreRow(const GemmParams& params, int64_t row, int64_t panel,
                                const Vec* sum) {
  const int64_t column = panel * kPanel;
  const int64_t columns = params.weight.n - column;
  float* y = params.y + row * params.y_stride + column;
  const float* bias = params.bias == nullptr ? nullptr : params.bias + column;
  if (columns >= kPanel) {
    for (int v = 0; v < kVecs; ++v) {
      Vec value = sum[v];
      if (bias != nullptr) value = value + Load(bias + v * kLanes);
      if (params.accumulate) value = Load(y + v * kLanes) + value;
      Store(y + v * kLanes, value);
    }
    return;
  }
  float values[kPanel];
  for (int v = 0; v < kVecs; ++v) Store(values + v * kLanes, sum[v]);
  for (int64_t j = 0; j < columns; ++j) {
    float value = values[j];
    if (bias != nullptr) value += bias[j];
    y[j] = params.accumulate ? y[j] + value : value;
  }
}

// The lines of y that a tile will write.
template <int kRows, int kPanels>
inline void PrefetchOutput(const TileArgs& args) {
  const GemmParams& params = *args.params;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const float* y = params.y + (args.row + r) * params.y_stride + args.panel * kPanel;
#pragma GCC unroll 16
    for (int p = 0; p < kPanels; ++p) __builtin_prefetch(y + p * kPanel, 1);
  }
}

// One register tile: kRows rows by kPanels panels over the whole of k. Never inlined: tiles merged
// into one function make the compiler take minutes.
template <typename Weights, int kRows, int kPanels>
[[gnu::noinline]] void Tile(const TileArgs& args) {
  const GemmParams& params = *args.params;
  using Word = typename Weights::Word;
  const int64_t steps = params.weight.k / Weights::kDepth;
  const int64_t panel_words = PanelWords<Weights>(params);
  const Word* w = static_cast<const Word*>(args.weights);
  const float* x[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) x[r] = params.x + (args.row + r) * params.x_stride;

  PrefetchOutput<kRows, kPanels>(args);
  Vec acc[kRows][kPanels * kVecs] = {};
  // The vector v of a k: panel v / kVecs, within which vector v % kVecs.
  const auto at = [&](int v) { return w + (v / kVecs) * panel_words + (v % kVecs) * kLanes; };
  for (int64_t s = 0; s < steps; ++s) {
    if constexpr (kRows <= 4) {
#pragma GCC unroll 16
      for (int p = 0; p < kPanels; ++p) {
        __builtin_prefetch(reinterpret_cast<const char*>(w + p * panel_words) + kPrefetchBytes);
      }
    } else if constexpr (kPrefetchRows) {
      if (s % (kLineFloats / Weights::kDepth) == 0) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          __builtin_prefetch(x[r] + kRows * params.x_stride + s * Weights::kDepth, 0, 2);
        }
      }
    }
    MulAddStep<kRows, kPanels>(
        x, s * Weights::kDepth, [&](int v) { return Weights::Low(at(v)); }, acc);
    if constexpr (Weights::kDepth == 2) {
      // A full tile loads the words again: keeping them for the second k would spill accumulators.
      if constexpr (kRows * kPanels * kVecs == kMaxAccumulators) asm volatile("" ::: "memory");
      MulAddStep<kRows, kPanels>(
          x, s * 2 + 1, [&](int v) { return Weights::High(at(v)); }, acc);
    }
    w += kPanel;
  }
  if (Weights::kDepth == 2 && params.weight.k % 2 != 0) {
    MulAddStep<kRows, kPanels>(
        x, steps * 2, [&](int v) { return Weights::Low(at(v)); }, acc);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int p = 0; p < kPanels; ++p) {
      Vec sum[kVecs];  // a copy: the accumulators' address must not escape, or they leave the
                       // registers
#pragma GCC unroll 16
      for (int v = 0; v < kVecs; ++v) sum[v] = acc[r][p * kVecs + v];
      StoreRow(params, args.row + r, args.panel + p, sum);
    }
  }
}

}  // namespace
}  // namespace acuity::kernels
