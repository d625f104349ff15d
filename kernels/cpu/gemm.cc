#include "kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/gemm_kernels.h"

namespace acuity::kernels {
namespace {

// A task's weights where it has few rows: a few microseconds at m = 1, against a tenth of one to
// claim a task.
constexpr int64_t kFewRows = 64;
constexpr int64_t kFewRowsWeightBytes = int64_t{64} << 10;
// Tasks are whole multiples of the widest tile's panels.
constexpr int64_t kPanelStep = 4;
// Tasks that a thread gets at least, if need be by halving their rows: the last ones to end then
// cost a tenth.
constexpr int64_t kTasksPerThread = 8;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A 2-D partition of [rows, panels]. Results do not depend on it.
struct Partition {
  int64_t rows_per_task = 0;
  int64_t row_tasks = 0;
  int64_t panels_per_task = 0;
  int64_t panel_tasks = 0;
};

Partition MakePartition(const GemmParams& params, const GemmKernels& kernels, int num_threads) {
  const PackedWeight& w = params.weight;
  Partition p;
  const int64_t panel_bytes =
      std::max<int64_t>(PanelElements(w.dtype, w.k) * static_cast<int64_t>(SizeOf(w.dtype)), 1);
  const int64_t weight_bytes =
      params.m <= kFewRows ? kFewRowsWeightBytes : kernels.task_weight_bytes;
  p.panels_per_task =
      CeilDiv(std::max<int64_t>(weight_bytes / panel_bytes, 1), kPanelStep) * kPanelStep;
  p.panel_tasks = CeilDiv(NumPanels(w.n), p.panels_per_task);

  const int64_t tile = kernels.max_rows;
  const int64_t fitting =
      kernels.row_block_bytes / (static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(w.k, 1));
  int64_t most_rows = std::max(fitting / tile, int64_t{1}) * tile;
  while (CeilDiv(params.m, most_rows) * p.panel_tasks < kTasksPerThread * num_threads &&
         most_rows > kFewRows) {
    most_rows = CeilDiv(most_rows / 2, tile) * tile;
  }
  const int64_t even = CeilDiv(params.m, CeilDiv(params.m, most_rows));
  p.rows_per_task = CeilDiv(even, tile) * tile;
  p.row_tasks = CeilDiv(params.m, p.rows_per_task);
  return p;
}

// The element of (row, k) in a packed matrix.
int64_t PackedIndex(const PackedWeight& w, int64_t row, int64_t k) {
  const int64_t panel = row / kPanel * PanelElements(w.dtype, w.k);
  const int64_t column = row % kPanel;
  if (w.dtype == DType::kBFloat16) return panel + (k / 2 * kPanel + column) * 2 + k % 2;
  return panel + k * kPanel + column;
}

}  // namespace

size_t PackedBytes(DType dtype, int64_t n, int64_t k) {
  return static_cast<size_t>(NumPanels(n) * PanelElements(dtype, k)) * SizeOf(dtype);
}

void PackRows(const float* rows, int64_t row_begin, int64_t num_rows, const PackedWeight& weight) {
  const int64_t row_end = row_begin + num_rows;
  for (int64_t first = row_begin; first < row_end;) {
    // Panel by panel, k outside: the writes of a panel's rows fall on the same cache lines.
    const int64_t last = std::min(row_end, (first / kPanel + 1) * kPanel);
    for (int64_t k = 0; k < weight.k; ++k) {
      for (int64_t row = first; row < last; ++row) {
        const float value = rows[(row - row_begin) * weight.k + k];
        const int64_t index = PackedIndex(weight, row, k);
        if (weight.dtype == DType::kBFloat16) {
          static_cast<uint16_t*>(weight.data)[index] = FloatToBFloat16(value);
        } else {
          static_cast<float*>(weight.data)[index] = value;
        }
      }
    }
    first = last;
  }
}

void UnpackRow(const PackedWeight& weight, int64_t row, float* out) {
  for (int64_t k = 0; k < weight.k; ++k) {
    const int64_t index = PackedIndex(weight, row, k);
    out[k] = weight.dtype == DType::kBFloat16
                 ? BFloat16ToFloat(static_cast<const uint16_t*>(weight.data)[index])
                 : static_cast<const float*>(weight.data)[index];
  }
}

const GemmKernels& GemmKernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return kGemmAvx512;
    case Isa::kAvx2:
      return kGemmAvx2;
    case Isa::kPortable:
      break;
  }
  return kGemmPortable;
}

void GemmWith(const GemmKernels& kernels, const GemmParams& params, const ParallelFor& parallel) {
  if (params.m <= 0 || params.weight.n <= 0) return;
  const Partition p = MakePartition(params, kernels, parallel.num_threads);
  const int64_t panels = NumPanels(params.weight.n);
  // Panels vary fastest: a thread keeps its rows of x in L2 from task to task.
  parallel(p.row_tasks * p.panel_tasks, [&](int64_t task) {
    const int64_t row = task / p.panel_tasks * p.rows_per_task;
    const int64_t panel = task % p.panel_tasks * p.panels_per_task;
    kernels.block(params, row, std::min(row + p.rows_per_task, params.m), panel,
                  std::min(panel + p.panels_per_task, panels));
  });
}

void Gemm(const GemmParams& params, const ParallelFor& parallel) {
  GemmWith(GemmKernelsFor(ActiveIsa()), params, parallel);
}

}  // namespace acuity::kernels
