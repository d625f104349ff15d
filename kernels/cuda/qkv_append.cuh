// QK-norm, rotary and the KV append: head_dim / 8 neighbouring lanes hold one head, eight elements
// each.
#pragma once

#include <math.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/layer_ops.h"
#include "kernels/cuda/reduce.cuh"

namespace acuity::kernels::cuda {

// sin and cos of an angle below 2^20, within 2e-7. Cody and Waite's reduction by multiples of pi /
// 2, kept as three floats: the first product and difference are exact in a fused operation. No
// table and no local memory, which the library's own reduction of large angles would use.
// Polynomials: Cephes sinf and cosf, on [-pi/4, pi/4].
ACUITY_DEVICE void SinCos(float angle, float* sine, float* cosine) {
  const float n = rintf(angle * 0.636619772f);
  float r = prim::FusedMultiplyAdd(n, -1.57079637e+0f, angle);
  r = prim::FusedMultiplyAdd(n, 4.37113883e-8f, r);
  r = prim::FusedMultiplyAdd(n, -1.71512451e-15f, r);
  const float z = r * r;
  const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  const float c =
      ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
      0.5f * z + 1.0f;
  const int quadrant = static_cast<int>(n) & 3;
  *sine = (quadrant & 1) != 0 ? c : s;
  *cosine = (quadrant & 1) != 0 ? s : c;
  if (quadrant >= 2) *sine = -*sine;
  if (quadrant == 1 || quadrant == 2) *cosine = -*cosine;
}

// Blocks (x, y): row x, the y-th group of kThreads / (head_dim / 8) of its heads.
template <DType kType>
struct QkvAppendKernel {
  struct Args {
    QkvAppendParams p;
    bool aligned;  // the norms' weights start at multiples of 16 bytes
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;

  ACUITY_DEVICE static void Run(const Args& args) {
    const QkvAppendParams& p = args.p;
    const AttentionShape& shape = p.shape;
    const int lanes = shape.head_dim / kChunk;
    const int heads = shape.num_heads + 2 * shape.num_kv_heads;
    const int64_t row = prim::BlockIndex().x;
    const int head =
        static_cast<int>(prim::BlockIndex().y) * (kThreads / lanes) + prim::ThreadIndex() / lanes;
    const int first =
        prim::ThreadIndex() % lanes * kChunk;  // of this thread's elements in the head
    const bool exists = head < heads;          // lanes without a head take part in the exchanges
    const bool is_q = head < shape.num_heads;
    const bool is_v = head >= shape.num_heads + shape.num_kv_heads;
    const int64_t at = (row * heads + head) * shape.head_dim + first;

    Chunk x = {};
    if (exists) x = LoadChunk<kType>(p.qkv, at, kChunk, true);
    if (p.q_norm != nullptr) Normalise(args, head, first, exists && !is_v, x);
    if (p.rope.rotary_dim > 0) Rotate(args, p.positions[row], first, exists && !is_v, x);
    if (!exists) return;
    if (is_q) return StoreChunk<kType>(p.qkv, at, kChunk, true, x);
    const int64_t slot = p.slots[row];
    if (slot < 0) return;
    const int kv_head = head - shape.num_heads - (is_v ? shape.num_kv_heads : 0);
    const int64_t page = slot / shape.block_size, within = slot % shape.block_size;
    const int64_t token = (page * shape.num_kv_heads + kv_head) * shape.block_size + within;
    StoreChunk<kType>(is_v ? p.v_pages : p.k_pages, token * shape.head_dim + first, kChunk, true,
                      x);
  }

 private:
  // x <- normalised(x) * weight, where `wanted`.
  ACUITY_DEVICE static void Normalise(const Args& args, int head, int first, bool wanted,
                                      Chunk& x) {
    const QkvAppendParams& p = args.p;
    const int lanes = p.shape.head_dim / kChunk;
    const float inverse_dim = 1.0f / static_cast<float>(p.shape.head_dim);
    float mean = 0;
    if (p.norm == NormKind::kLayer) {
      float sum = 0;
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) sum += x.value[i];
      mean = GroupSum(sum, lanes) * inverse_dim;
    }
    float squares = 0;
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      squares += (x.value[i] - mean) * (x.value[i] - mean);
    }
    const float scale = 1.0f / sqrtf(GroupSum(squares, lanes) * inverse_dim + p.epsilon);
    if (!wanted) return;
    const bool is_q = head < p.shape.num_heads;
    const float* weights = is_q ? p.q_norm : p.k_norm;
    const int own = p.own_weights ? head - (is_q ? 0 : p.shape.num_heads) : 0;
    const Chunk weight = LoadChunk<DType::kFloat32>(
        weights, int64_t{own} * p.shape.head_dim + first, kChunk, args.aligned);
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      x.value[i] = (x.value[i] - mean) * scale * weight.value[i];
    }
  }

  // Rotates the pairs of x that are within rotary_dim, where `wanted`. The angle is the float32
  // product, as in Hugging Face's models.
  ACUITY_DEVICE static void Rotate(const Args& args, int32_t position, int first, bool wanted,
                                   Chunk& x) {
    const RopeParams& rope = args.p.rope;
    const bool rotates = wanted && first < rope.rotary_dim;
    const float at = static_cast<float>(position);
    if (rope.style == RopeStyle::kInterleaved) {
      ACUITY_UNROLL for (int i = 0; i < kChunk; i += 2) {
        if (!rotates || first + i >= rope.rotary_dim) continue;
        float sine, cosine;
        SinCos(at * rope.inv_frequency[(first + i) / 2], &sine, &cosine);
        RotatePair(x.value[i], x.value[i + 1], sine * rope.magnitude, cosine * rope.magnitude);
      }
      return;
    }
    const int half = rope.rotary_dim / 2;
    const bool lower = first < half;
    const int lane = prim::LaneIndex();
    const int partner = !rotates ? lane : (lower ? lane + half / kChunk : lane - half / kChunk);
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      const float other = prim::Shuffle(x.value[i], partner);
      if (!rotates) continue;
      float sine, cosine;
      SinCos(at * rope.inv_frequency[(lower ? first : first - half) + i], &sine, &cosine);
      sine *= rope.magnitude;
      x.value[i] = x.value[i] * (cosine * rope.magnitude) + other * (lower ? -sine : sine);
    }
  }

  ACUITY_DEVICE static void RotatePair(float& a, float& b, float sine, float cosine) {
    const float rotated = a * cosine - b * sine;
    b = b * cosine + a * sine;
    a = rotated;
  }
};

}  // namespace acuity::kernels::cuda
