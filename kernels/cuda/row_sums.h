// SumRows on a GPU: the same bits as kernels/row_sums.h makes of the same statistics on the CPU.
#pragma once

#include "kernels/row_sums.h"

namespace acuity::kernels::cuda {

// As kernels::SumRows, all pointers the device's; padding (MeasuredRows without rows) writes
// nothing. Enqueues one kernel: null, or a static sentence that says what was refused, or the error
// of the launch. Allocates nothing; safe in a CUDA graph. `stream` is a cudaStream_t.
[[nodiscard]] const char* SumRows(const SumRowsParams& params, void* stream);

}  // namespace acuity::kernels::cuda
