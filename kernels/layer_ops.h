// The small per-row operations between the GEMMs of a decoder layer, and the KV append.
// Each row is computed alone and in a fixed order: results do not depend on the batch.
#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace acuity::kernels {

// out[i] = x[i] / sqrt(mean(x[i]^2) + epsilon) * weight, rows of `dim` floats. x == out is allowed.
void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int64_t dim,
             float* out, const ParallelFor& parallel);

// out[i, j] = silu(gate_up[i, j]) * gate_up[i, dim + j]; gate_up: [rows, 2 * dim], out: [rows,
// dim].
void SiluMul(const float* gate_up, int64_t rows, int64_t dim, float* out,
             const ParallelFor& parallel);

// How pairs of a head's elements rotate.
enum class RopeStyle : uint8_t {
  kHalf,         // (x[i], x[i + d/2]): Hugging Face, GPT-NeoX
  kInterleaved,  // (x[2i], x[2i + 1]): GGUF's llama architecture, whose Q and K rows are permuted
                 // for it
};

struct RopeParams {
  RopeStyle style = RopeStyle::kHalf;
  int rotary_dim = 0;                    // even, <= head_dim; 0: no rotary in this layer
  const float* inv_frequency = nullptr;  // [rotary_dim / 2], radians per position
};

// Rotates q in place and appends rotated k, and v, to their pages, in one pass over the new rows.
// qkv: [rows, (num_heads + 2 * num_kv_heads) * head_dim], row = q heads, k heads, v heads.
// positions: [rows] absolute. slots: [rows] page * block_size + offset within the page.
struct RopeAppendParams {
  AttentionShape shape;
  RopeParams rope;
  float* qkv = nullptr;  // k's part is rotated in place as well
  int64_t rows = 0;
  const int32_t* positions = nullptr;
  const int64_t* slots = nullptr;
  void* k_pages = nullptr;  // [pages, num_kv_heads, block_size, head_dim] of kv_dtype
  void* v_pages = nullptr;
};
void RopeAppend(const RopeAppendParams& params, const ParallelFor& parallel);

}  // namespace acuity::kernels
