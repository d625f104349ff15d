// The row operations of one instruction set: included once by each layer_ops_<isa>.cc, which
// defines its table.
//
// Calls nothing inline from outside the anonymous namespace: such a copy, compiled for a newer CPU,
// could be the one that other units link to.
#pragma once

#include <math.h>

#include <cstdint>

#include "kernels/cpu/layer_ops_kernels.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

// Vectors summed side by side by the norms, to hide the latency of FMA.
constexpr int kSums = 4;

// Rotations whose cos and sin are held at once: 128 cover head_dim 256.
constexpr int kRotationChunk = 128;

// sum x in one fixed order: kSums vectors of partial sums, then the tail.
inline float Sum(const float* x, int64_t dim) {
  Vec sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= dim; i += kSums * kLanes) {
    for (int s = 0; s < kSums; ++s) sums[s] = sums[s] + Load(x + i + s * kLanes);
  }
  float tail = 0;
  for (; i < dim; ++i) tail += x[i];
  return ReduceAdd((sums[0] + sums[1]) + (sums[2] + sums[3])) + tail;
}

// sum x^2, likewise.
inline float SumOfSquares(const float* x, int64_t dim) {
  Vec sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= dim; i += kSums * kLanes) {
    for (int s = 0; s < kSums; ++s) {
      const Vec v = Load(x + i + s * kLanes);
      sums[s] = MulAdd(v, v, sums[s]);
    }
  }
  float tail = 0;
  for (; i < dim; ++i) tail += x[i] * x[i];
  return ReduceAdd((sums[0] + sums[1]) + (sums[2] + sums[3])) + tail;
}

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t dim, float* out) {
  const float mean = SumOfSquares(x, dim) / static_cast<float>(dim);
  const float scale = 1.0f / sqrtf(mean + epsilon);
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    Store(out + i, Load(x + i) * Broadcast(scale) * Load(weight + i));
  }
  for (; i < dim; ++i) out[i] = x[i] * scale * weight[i];
}

void LayerNormRow(const float* x, const NormParams& params, int64_t dim, float* out) {
  const float mean = Sum(x, dim) / static_cast<float>(dim);
  for (int64_t i = 0; i < dim; ++i) out[i] = x[i] - mean;
  const float variance = SumOfSquares(out, dim) / static_cast<float>(dim);
  const float scale = 1.0f / sqrtf(variance + params.epsilon);
  if (params.bias == nullptr) {
    for (int64_t i = 0; i < dim; ++i) out[i] = out[i] * scale * params.weight[i];
  } else {
    for (int64_t i = 0; i < dim; ++i) out[i] = out[i] * scale * params.weight[i] + params.bias[i];
  }
}

void NormRow(const float* x, const NormParams& params, int64_t dim, float* out) {
  if (params.kind == NormKind::kRms) {
    RmsNormRow(x, params.weight, params.epsilon, dim, out);
  } else {
    LayerNormRow(x, params, dim, out);
  }
}

// Rotates the pairs (a[i], b[i]).
void RotateHalf(float* a, float* b, const float* cosine, const float* sine, int64_t pairs) {
  int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const Vec x = Load(a + i), y = Load(b + i);
    const Vec c = Load(cosine + i), s = Load(sine + i);
    Store(a + i, x * c - y * s);
    Store(b + i, y * c + x * s);
  }
  for (; i < pairs; ++i) {
    const float x = a[i], y = b[i];
    a[i] = x * cosine[i] - y * sine[i];
    b[i] = y * cosine[i] + x * sine[i];
  }
}

void RotateInterleaved(float* head, const float* cosine, const float* sine, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float x = head[2 * i], y = head[2 * i + 1];
    head[2 * i] = x * cosine[i] - y * sine[i];
    head[2 * i + 1] = y * cosine[i] + x * sine[i];
  }
}

// Rotates `heads` consecutive heads of one row in place. The angle is the float32 product, as in
// Hugging Face's models (beyond a knee a second one is added); its cos and sin are computed once
// for all heads.
void RotateHeads(const RopeAppendParams& params, int32_t position, int heads, float* row) {
  const RopeParams& rope = params.rope;
  const int64_t head_dim = params.shape.head_dim;
  const int64_t half = rope.rotary_dim / 2;
  const bool beyond = rope.inv_frequency_beyond != nullptr && position > rope.knee;
  const auto within = static_cast<float>(beyond ? rope.knee : position);
  float cosine[kRotationChunk];
  float sine[kRotationChunk];
  for (int64_t begin = 0; begin < half; begin += kRotationChunk) {
    const int64_t pairs = half - begin < kRotationChunk ? half - begin : kRotationChunk;
    for (int64_t i = 0; i < pairs; ++i) {
      float angle = within * rope.inv_frequency[begin + i];
      if (beyond) {
        angle += static_cast<float>(position - rope.knee) * rope.inv_frequency_beyond[begin + i];
      }
      cosine[i] = cosf(angle) * rope.magnitude;
      sine[i] = sinf(angle) * rope.magnitude;
    }
    for (int h = 0; h < heads; ++h) {
      float* head = row + h * head_dim;
      if (rope.style == RopeStyle::kHalf) {
        RotateHalf(head + begin, head + half + begin, cosine, sine, pairs);
      } else {
        RotateInterleaved(head + 2 * begin, cosine, sine, pairs);
      }
    }
  }
}

inline void StoreRounded(uint16_t* p, Vec v) { StoreBFloat16(p, v); }
inline void StoreRounded(uint8_t* p, Vec v) { StoreFloat8(p, v); }

template <typename T>
inline void RoundHead(const float* values, int64_t dim, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) StoreRounded(out + i, Load(values + i));
  if (i == dim) return;
  float padded[kLanes] = {};
  T rounded[kLanes];
  __builtin_memcpy(padded, values + i, static_cast<size_t>(dim - i) * sizeof(float));
  StoreRounded(rounded, Load(padded));
  __builtin_memcpy(out + i, rounded, static_cast<size_t>(dim - i) * sizeof(T));
}

int64_t CountSaturated(const float* values, int64_t count) {
  int64_t saturated = 0;
  for (int64_t i = 0; i < count; ++i) saturated += SaturatesFloat8(values[i]);
  return saturated;
}

// Writes one head's values to its place in the pages, as kv_dtype.
void AppendHead(const float* values, DType dtype, int64_t dim, int64_t offset, void* pages) {
  if (dtype == DType::kFloat32) {
    __builtin_memcpy(static_cast<float*>(pages) + offset, values,
                     static_cast<size_t>(dim) * sizeof(float));
  } else if (dtype == DType::kBFloat16) {
    RoundHead(values, dim, static_cast<uint16_t*>(pages) + offset);
  } else {
    RoundHead(values, dim, static_cast<uint8_t*>(pages) + offset);
  }
}

void RopeAppendRow(const RopeAppendParams& params, int64_t row) {
  const AttentionShape& shape = params.shape;
  const int64_t heads = shape.num_heads + 2 * int64_t{shape.num_kv_heads};
  float* q = params.qkv + row * heads * shape.head_dim;
  float* k = q + int64_t{shape.num_heads} * shape.head_dim;
  float* v = k + int64_t{shape.num_kv_heads} * shape.head_dim;
  RotateHeads(params, params.positions[row], shape.num_heads + shape.num_kv_heads, q);

  const int64_t page = params.slots[row] / shape.block_size;
  const int64_t within = params.slots[row] % shape.block_size;
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    const int64_t token = (page * shape.num_kv_heads + h) * shape.block_size + within;
    const int64_t offset = token * shape.head_dim;
    AppendHead(k + h * shape.head_dim, shape.kv_dtype, shape.head_dim, offset, params.k_pages);
    AppendHead(v + h * shape.head_dim, shape.kv_dtype, shape.head_dim, offset, params.v_pages);
  }
  if (shape.kv_dtype != DType::kFloat8 || params.saturated == nullptr) return;
  const int64_t saturated = CountSaturated(k, 2 * int64_t{shape.num_kv_heads} * shape.head_dim);
  if (saturated > 0) {
    __atomic_fetch_add(params.saturated, static_cast<uint64_t>(saturated), __ATOMIC_RELAXED);
  }
}

}  // namespace
}  // namespace acuity::kernels
