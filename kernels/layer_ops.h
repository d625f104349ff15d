// The small per-row operations between the GEMMs of a decoder layer, and the KV append.
// Each row is computed alone and in a fixed order: results do not depend on the batch.
#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace acuity::kernels {

enum class NormKind : uint8_t {
  kRms,    // x / sqrt(mean(x^2) + epsilon)
  kLayer,  // (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)
};

struct NormParams {
  NormKind kind = NormKind::kRms;
  float epsilon = 0;
  const float* weight = nullptr;  // [dim]
  const float* bias = nullptr;    // [dim] or null; kLayer only
};

// out = normalised(x) * weight + bias, rows of `dim` floats. x == out is allowed.
void Norm(const float* x, const NormParams& params, int64_t rows, int64_t dim, float* out,
          const ParallelFor& parallel);

// Normalises consecutive groups of each row in place: Q's or K's heads. x: [rows, groups, dim] with
// row stride x_stride floats. The weight is [dim], or [groups, dim] with `own_weights`.
void NormGroups(float* x, int64_t x_stride, const NormParams& params, bool own_weights,
                int64_t rows, int64_t groups, int64_t dim, const ParallelFor& parallel);

enum class Activation : uint8_t {
  kSilu,           // x / (1 + e^-x)
  kGelu,           // x / 2 * (1 + erf(x / sqrt 2))
  kGeluTanh,       // x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
  kClampedSwiglu,  // gated only (GPT-OSS): g = min(gate, 7), u = up within +-7:
                   // g / (1 + e^(-1.702 g)) * (u + 1)
};

// out[i, j] = activation(in[i, j]) * in[i, dim + j] if `gated`, in: [rows, 2 * dim]; else
// out[i, j] = activation(in[i, j]), in: [rows, dim]. out: [rows, dim].
void Activate(Activation activation, bool gated, const float* in, int64_t rows, int64_t dim,
              float* out, const ParallelFor& parallel);

// y += scale * x, both [rows, dim].
void AddScaled(const float* x, float scale, int64_t rows, int64_t dim, float* y,
               const ParallelFor& parallel);

// x = cap * tanh(scale * x / cap), or scale * x if cap is 0; [rows, dim].
void ScaleAndCap(float scale, float cap, int64_t rows, int64_t dim, float* x,
                 const ParallelFor& parallel);

// How pairs of a head's elements rotate.
enum class RopeStyle : uint8_t {
  kHalf,         // (x[i], x[i + d/2]): Hugging Face, GPT-NeoX
  kInterleaved,  // (x[2i], x[2i + 1]): GGUF's llama architecture, whose Q and K rows are permuted
                 // for it
};

// Pair i of position p turns by p * inv_frequency[i] or, beyond the knee, by
// knee * inv_frequency[i] + (p - knee) * inv_frequency_beyond[i].
struct RopeParams {
  RopeStyle style = RopeStyle::kHalf;
  int rotary_dim = 0;                           // even, <= head_dim; 0: no rotary in this layer
  const float* inv_frequency = nullptr;         // [rotary_dim / 2], radians per position
  float magnitude = 1;                          // of the rotated elements (YaRN's attention factor)
  int32_t knee = 0;                             // > 0 if there is one
  const float* inv_frequency_beyond = nullptr;  // [rotary_dim / 2], or null: there is no knee
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
  // With kFloat8 pages: increased by how many keys' and values' elements SaturatesFloat8. Null:
  // nobody counts.
  uint64_t* saturated = nullptr;
};
void RopeAppend(const RopeAppendParams& params, const ParallelFor& parallel);

}  // namespace acuity::kernels
