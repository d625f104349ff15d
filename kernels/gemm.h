// y = x W^T for the decoder's weights, float32 activations against packed float32 or bfloat16
// weights.
//
// Every output element is accumulated in one fixed order over k, in float32, whatever m is: a row's
// result is bit-identical alone, in any batch, in any prefill chunk and with any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/parallel.h"

namespace acuity::kernels {

// A weight matrix [n, k] in panels of kPanel output columns, k-major within a panel, bfloat16 in
// pairs of k (the last panel and an odd k are padded with zeros). Does not own `data`, which must
// be aligned to 64 bytes.
struct PackedWeight {
  DType dtype = DType::kFloat32;
  int64_t n = 0;  // output features
  int64_t k = 0;  // input features
  void* data = nullptr;
};

inline constexpr int kPanel = 16;

// Bytes that a packed [n, k] matrix takes.
size_t PackedBytes(DType dtype, int64_t n, int64_t k);

// Packs rows [row_begin, row_begin + num_rows) of W, given as float32 [num_rows, k]; each row once,
// in any order, from any threads. bfloat16 rounds to nearest even. PackedBytes' memory must be
// zeroed before the first call.
void PackRows(const float* rows, int64_t row_begin, int64_t num_rows, const PackedWeight& weight);

// Reads row `row` of W back as float32 [k] (the embedding look-up of a tied matrix).
void UnpackRow(const PackedWeight& weight, int64_t row, float* out);

// y[i, j] = (accumulate ? y[i, j] : 0) + sum_k x[i, k] W[j, k] + (bias ? bias[j] : 0).
// In float32: the sum first, then the bias, then the old y, so that a large residual doesn't
// coarsen the sum. x: [m, k] with row stride x_stride floats; y: [m, n] with row stride y_stride. x
// and y do not overlap.
struct GemmParams {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t m = 0;
  PackedWeight weight;
  const float* bias = nullptr;  // [n] or null
  bool accumulate = false;      // adds into y (a residual connection)
  float* y = nullptr;
  int64_t y_stride = 0;
};
void Gemm(const GemmParams& params, const ParallelFor& parallel);

}  // namespace acuity::kernels
