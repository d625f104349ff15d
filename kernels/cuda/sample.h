// Draws one token for each row of logits, on a GPU. The same token as engine/sample/sampler.h draws
// on the CPU from the same logits, parameters, seed and position: the weights are the same bits
// (kernels/sampling_math.h), both walk the tokens in the order of their ids, and only sums of
// float64 differ in their order.
#pragma once

#include <cstdint>

#include "kernels/sample.h"

namespace acuity::kernels::cuda {

// Pointers are device pointers, not owned, valid until the stream has passed the call.
struct SampleParams {
  const float* logits = nullptr;  // [rows, vocab] with row stride `stride`
  float* scratch =
      nullptr;  // likewise; may be `logits` itself, which is then lost. Greedy rows leave it alone
  int64_t stride = 0;  // >= vocab; a multiple of 4 and aligned arrays allow 16 bytes at a time
  int vocab = 0;       // >= 1
  int64_t rows = 0;
  const SampleRow* params = nullptr;  // [rows]
  // [rows]. -1 for a row that holds a NaN or +infinity, or nothing finite: its request must fail.
  int32_t* tokens = nullptr;
};

// Enqueues one kernel: null, or a static sentence that says what was refused, or the error of the
// launch. Allocates nothing; safe in a CUDA graph. `stream` is a cudaStream_t.
[[nodiscard]] const char* Sample(const SampleParams& params, void* stream);

}  // namespace acuity::kernels::cuda
