// Internal: what one instruction set provides to Gemm. Tests call every table that the machine can
// run.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/gemm.h"

namespace acuity::kernels {

struct GemmKernels {
  int max_rows = 0;  // of the tallest register tile
  // A task's rows of x, and its packed weights where there are more rows than a few.
  int64_t row_block_bytes = 0;
  int64_t task_weight_bytes = 0;

  // Computes y of rows [row_begin, row_end) and panels [panel_begin, panel_end).
  void (*block)(const GemmParams& params, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                int64_t panel_end) = nullptr;
};

extern const GemmKernels kGemmPortable;
extern const GemmKernels kGemmAvx2;
extern const GemmKernels kGemmAvx512;

const GemmKernels& GemmKernelsFor(Isa isa);

// Gemm with a given table.
void GemmWith(const GemmKernels& kernels, const GemmParams& params, const ParallelFor& parallel);

// Layout of a packed matrix: panel p holds columns [16p, 16p + 16).
//   float32:  [panels, k, kPanel]
//   bfloat16: [panels, ceil(k / 2), kPanel, 2]; a 32-bit word holds k (low half) and k + 1 of one
//   column, so that
//             one load gives two float32 vectors by a shift and a mask. An odd k is padded with
//             zero.
constexpr int64_t NumPanels(int64_t n) { return (n + kPanel - 1) / kPanel; }
constexpr int64_t PanelElements(DType dtype, int64_t k) {
  return kPanel * (dtype == DType::kBFloat16 ? (k + 1) / 2 * 2 : k);
}

}  // namespace acuity::kernels
