// The operations between the GEMMs of a decoder layer, on a GPU: what kernels/layer_ops.h is for
// the CPU, with 16-bit activations and a float32 residual stream. Arithmetic is float32; every
// result is rounded once.
//
// All pointers are device pointers unless said otherwise, not owned, and must stay valid until the
// stream has passed the call. Every function enqueues one kernel and returns at once: null, or a
// static sentence that names the argument and what is allowed, or the error of the launch. Nothing
// is enqueued then. Each row is computed alone and in a fixed order: results do not depend on the
// batch. Nothing is allocated, no argument is read from the host later: safe in a CUDA graph.
// `stream` is a cudaStream_t.
#pragma once

#include <cstdint>

#include "kernels/layer_ops.h"

namespace acuity::kernels::cuda {

// residual[row] = scale * table[tokens[row]] + position_table[positions[row]]: product and sum are
// rounded one after the other, so that the bits are those of the CPU's decoder.
struct EmbedRowsParams {
  DType dtype = DType::kBFloat16;        // of both tables: kBFloat16 or kFloat16
  const void* table = nullptr;           // [vocab, dim]
  const void* position_table = nullptr;  // [max_context, dim], or null: no learned positions
  float scale = 1;
  // [rows] below vocab; -1: a padding row, which becomes 0; below that, -2 - i: drawn[i].
  const int32_t* tokens = nullptr;
  const int32_t* drawn = nullptr;      // below vocab or -1; null if no token is below -1
  const int32_t* positions = nullptr;  // [rows] of those that are no padding; not read without
                                       // position_table
  float* residual = nullptr;           // [rows, dim]
  int64_t rows = 0;
  int dim = 0;  // >= 1; 16 bytes at a time if it is a multiple of 8 and all arrays are aligned
};
[[nodiscard]] const char* EmbedRows(const EmbedRowsParams& params, void* stream);

// residual += delta_scale * delta; out = normalised(residual) * weight + bias.
struct AddNormParams {
  // kRms or kLayer; weight and bias: device. No weight: no norm, out is the residual, rounded.
  NormParams norm;
  DType dtype = DType::kBFloat16;  // of delta and out: kBFloat16 or kFloat16
  float* residual = nullptr;       // [rows, dim], in place
  const void* delta = nullptr;     // [rows, dim], or null: the residual stays as it is
  float delta_scale = 1;
  void* out = nullptr;  // [rows, dim], or null without a norm: nothing is written
  int64_t rows = 0;
  int dim = 0;  // >= 1; 16 bytes at a time if it is a multiple of 8
};
[[nodiscard]] const char* AddNorm(const AddNormParams& params, void* stream);

// out[i, j] = activation(in[i, j]) * in[i, dim + j] if `gated`, in: [rows, 2 * dim], as one GEMM
// with the merged gate and up weights leaves it; else out[i, j] = activation(in[i, j]), in: [rows,
// dim]. out: [rows, dim], may not overlap `in`. Any alignment and dim; 16 bytes at a time where
// both allow it.
struct ActivateParams {
  Activation activation = Activation::kSilu;  // kClampedSwiglu: gated only
  bool gated = true;
  DType dtype = DType::kBFloat16;  // kBFloat16 or kFloat16
  const void* in = nullptr;
  int64_t rows = 0;
  int64_t dim = 0;
  void* out = nullptr;
};
[[nodiscard]] const char* Activate(const ActivateParams& params, void* stream);

// In one pass over the new rows: normalises each head, or the whole, of Q and of K (optional),
// rotates both (optional), writes Q and appends K and V to their pages.
struct QkvAppendParams {
  DType dtype = DType::kBFloat16;  // of qkv: kBFloat16 or kFloat16
  // head_dim 16, 32, 64, 128 or 256; kv_dtype the same as `dtype`, or kFloat8: rounded as
  // FloatToFloat8 does, to 448 at most.
  AttentionShape shape;
  // kHalf: rotary_dim a multiple of 16; kInterleaved: of 2. 0: no rotary. Angles below 2^20.
  RopeParams rope;
  // QK-norm over single heads: weights [head_dim], or [heads, head_dim] with `own_weights`. With
  // `whole_norm` over all heads of Q, and of K, together: weights [heads, head_dim]. Null: none.
  // Both or neither.
  NormKind norm = NormKind::kRms;
  float epsilon = 0;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  bool own_weights = false;
  bool whole_norm = false;
  void* qkv = nullptr;  // [rows, num_heads + 2 * num_kv_heads, head_dim]: q, k, v; aligned to 16
  int64_t rows = 0;
  // [rows, num_heads, head_dim] with row stride q_stride floats, as RunAttention reads it: not
  // rounded, and qkv stays as it is. Aligned to 16, q_stride a multiple of 4. Null: q is written
  // back to qkv.
  float* q = nullptr;
  int64_t q_stride = 0;
  const int32_t* positions = nullptr;  // [rows] absolute, below 2^20
  const int64_t* slots = nullptr;      // [rows] page * block_size + offset within the page; < 0: a
                                       // padding row, not appended
  void* k_pages = nullptr;             // [pages, num_kv_heads, block_size, head_dim]; aligned to 16
  void* v_pages = nullptr;
  // With kFloat8 pages: increased by how many keys' and values' elements SaturatesFloat8; on the
  // device. Null: nobody counts.
  uint64_t* saturated = nullptr;
};
[[nodiscard]] const char* QkvAppend(const QkvAppendParams& params, void* stream);

// out[i] = in[rows[i]]: the rows whose outputs are wanted, or those that an expert computes.
struct GatherRowsParams {
  const void* in = nullptr;       // [any, row_bytes]; aligned to 4
  const int32_t* rows = nullptr;  // [count], of `in`; < 0: zeroes are written
  int64_t count = 0;
  int64_t row_bytes = 0;  // a multiple of 4, at least 4; 16 bytes at a time if it is one of 16 and
                          // both arrays are aligned
  void* out = nullptr;    // [count, row_bytes], may not overlap `in`; aligned to 4
};
[[nodiscard]] const char* GatherRows(const GatherRowsParams& params, void* stream);

// out[i, j] = cap * tanh(scale * in[i, j] / cap), or scale * in[i, j] if cap is 0: from the last
// GEMM's logits to those that Sample takes.
struct ScaleAndCapParams {
  DType dtype = DType::kBFloat16;  // of `in`: any
  float scale = 1;
  float cap = 0;             // >= 0
  const void* in = nullptr;  // [rows, dim]
  int64_t rows = 0;
  int64_t dim = 0;       // >= 1
  float* out = nullptr;  // [rows, dim] with row stride out_stride; may be `in` itself if that is
                         // float32 and out_stride is dim, else they may not overlap
  int64_t out_stride =
      0;  // in floats, >= dim; any alignment, 16 bytes at a time where all allow it
};
[[nodiscard]] const char* ScaleAndCap(const ScaleAndCapParams& params, void* stream);

// Copies or zeroes whole pages, in every pool at once (a pool: one layer's keys or values). For
// preemption and for blocks that a failed request may have left NaN in, which would poison a masked
// 0 * NaN.
struct PagesParams {
  void* const* pools = nullptr;   // [num_pools] device array of pool starts, each aligned to 16
  int num_pools = 0;              // at most 65535
  int64_t page_bytes = 0;         // a multiple of 16
  const int32_t* from = nullptr;  // [count] page indices, or null: zeroes are written
  const int32_t* to = nullptr;    // [count] distinct, none of them in `from`
  int64_t count = 0;
};
[[nodiscard]] const char* FillPages(const PagesParams& params, void* stream);

}  // namespace acuity::kernels::cuda
