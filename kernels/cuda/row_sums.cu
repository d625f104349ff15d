#include "kernels/cuda/row_sums.h"

#include "kernels/cuda/row_sums.cuh"

namespace acuity::kernels::cuda {

const char* SumRows(const SumRowsParams& p, void* stream) {
  if (p.count < 0) return "SumRows: count must be at least 0";
  if (p.num_layers < 1 || p.num_layers > 65535) {
    return "SumRows: num_layers must be within 1 and 65535";
  }
  if (p.num_heads < 1) return "SumRows: num_heads must be at least 1";
  const prim::Dim3 grid = {static_cast<uint32_t>(p.count), static_cast<uint32_t>(p.num_layers), 1};
  return prim::Launch<SumRowsKernel>(grid, SumRowsKernel::kSharedBytes, p, stream);
}

}  // namespace acuity::kernels::cuda
