// QK-norm, rotary and the KV append: head_dim / 8 neighbouring lanes hold one head, eight elements
// each. kType: of qkv.
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

// Blocks (x, y): row x, the y-th group of kThreads / (head_dim / 8) of its heads. With a norm over
// all heads one block takes the row's groups in turn: a sum of the whole row comes first.
template <DType kType>
struct QkvAppendKernel {
  struct Args {
    QkvAppendParams p;
    bool aligned;  // the norms' weights start at multiples of 16 bytes
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kSharedBytes = 4 * kWarps * sizeof(float);  // two sums of Q, two of K

  ACUITY_DEVICE static void Run(const Args& args) {
    const QkvAppendParams& p = args.p;
    const int lanes = p.shape.head_dim / kChunk, per_turn = kThreads / lanes;
    const int heads = p.shape.num_heads + 2 * p.shape.num_kv_heads;
    Moments of_q = {}, of_k = {};
    if (p.q_norm != nullptr && p.whole_norm) {
      const prim::Shared<float> scratch = prim::SharedMemory<float>();
      of_q = WholeMoments(p, 0, p.shape.num_heads, scratch);
      of_k = WholeMoments(p, p.shape.num_heads, p.shape.num_kv_heads, scratch + 2 * kWarps);
    }
    ACUITY_NO_UNROLL
    for (int first = static_cast<int>(prim::BlockIndex().y) * per_turn; first < heads;
         first += static_cast<int>(prim::GridSize().y) * per_turn) {
      const int head = first + prim::ThreadIndex() / lanes;
      const bool is_q = head < p.shape.num_heads;
      Append(args, head, {is_q ? of_q.mean : of_k.mean, is_q ? of_q.scale : of_k.scale});
    }
  }

 private:
  struct Moments {
    float mean, scale;  // what is subtracted, then multiplied by
  };

  // This thread's eight elements of one head; `whole`: of the norm over all heads, if there is one.
  ACUITY_DEVICE static void Append(const Args& args, int head, Moments whole) {
    const QkvAppendParams& p = args.p;
    const AttentionShape& shape = p.shape;
    const int heads = shape.num_heads + 2 * shape.num_kv_heads;
    const int64_t row = prim::BlockIndex().x;
    const int first = prim::ThreadIndex() % (shape.head_dim / kChunk) * kChunk;
    const bool exists = head < heads;  // lanes without a head take part in the exchanges
    const bool is_q = head < shape.num_heads;
    const bool is_v = head >= shape.num_heads + shape.num_kv_heads;
    const int64_t at = (row * heads + head) * shape.head_dim + first;

    Chunk x = {};
    if (exists) x = LoadChunk<kType>(p.qkv, at, kChunk, true);
    if (p.q_norm != nullptr) Normalise(args, head, first, exists && !is_v, whole, x);
    if (p.rope.rotary_dim > 0) Rotate(args, p.positions[row], first, exists && !is_v, x);
    if (!exists) return;
    if (is_q) {
      if (p.q == nullptr) return StoreChunk<kType>(p.qkv, at, kChunk, true, x);
      return StoreChunk<DType::kFloat32>(
          p.q, row * p.q_stride + int64_t{head} * shape.head_dim + first, kChunk, true, x);
    }
    const int64_t slot = p.slots[row];
    if (slot < 0) return;
    const int kv_head = head - shape.num_heads - (is_v ? shape.num_kv_heads : 0);
    const int64_t page = slot / shape.block_size, within = slot % shape.block_size;
    const int64_t token = (page * shape.num_kv_heads + kv_head) * shape.block_size + within;
    StoreToPage(p, is_v ? p.v_pages : p.k_pages, token * shape.head_dim + first, x);
  }

  // Rounded to the pages' type, of which eight are 16 bytes or 8. One kernel for both: a branch
  // that all threads take alike.
  ACUITY_DEVICE static void StoreToPage(const QkvAppendParams& p, void* pages, int64_t at,
                                        const Chunk& x) {
    if (p.shape.kv_dtype != DType::kFloat8) return StoreChunk<kType>(pages, at, kChunk, true, x);
    uint64_t bytes = 0, saturated = 0;
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      bytes |= uint64_t{FloatToFloat8(x.value[i])} << 8 * i;
      saturated += SaturatesFloat8(x.value[i]);
    }
    *reinterpret_cast<uint64_t*>(static_cast<char*>(pages) + at) = bytes;
    if (saturated > 0 && p.saturated != nullptr) prim::AtomicAdd(p.saturated, saturated);
  }

  // Over heads [first_head, first_head + heads) of the block's row; in every thread. `scratch` has
  // 2 kWarps elements that nothing else uses.
  ACUITY_DEVICE static Moments WholeMoments(const QkvAppendParams& p, int first_head, int heads,
                                            prim::Shared<float> scratch) {
    const int64_t all_heads = p.shape.num_heads + 2 * p.shape.num_kv_heads;
    const int64_t begin =
        (prim::BlockIndex().x * all_heads + first_head) * int64_t{p.shape.head_dim};
    const int size = heads * p.shape.head_dim;
    const float inverse_size = 1.0f / static_cast<float>(size);
    float mean = 0;
    if (p.norm == NormKind::kLayer) {
      float sum = 0;
      for (int at = prim::ThreadIndex() * kChunk; at < size; at += kThreads * kChunk) {
        const Chunk x = LoadChunk<kType>(p.qkv, begin + at, kChunk, true);
        ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) sum += x.value[i];
      }
      mean = BlockSum<kWarps>(sum, scratch + kWarps) * inverse_size;
    }
    float squares = 0;
    for (int at = prim::ThreadIndex() * kChunk; at < size; at += kThreads * kChunk) {
      squares += SquaresAround(LoadChunk<kType>(p.qkv, begin + at, kChunk, true), mean);
    }
    squares = BlockSum<kWarps>(squares, scratch);
    return {mean, 1.0f / sqrtf(squares * inverse_size + p.epsilon)};
  }

  ACUITY_DEVICE static float SquaresAround(const Chunk& x, float mean) {
    float squares = 0;
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      squares += (x.value[i] - mean) * (x.value[i] - mean);
    }
    return squares;
  }

  // Over one head, in its lanes.
  ACUITY_DEVICE static Moments HeadMoments(const QkvAppendParams& p, const Chunk& x) {
    const int lanes = p.shape.head_dim / kChunk;
    const float inverse_dim = 1.0f / static_cast<float>(p.shape.head_dim);
    float mean = 0;
    if (p.norm == NormKind::kLayer) {
      float sum = 0;
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) sum += x.value[i];
      mean = GroupSum(sum, lanes) * inverse_dim;
    }
    const float squares = GroupSum(SquaresAround(x, mean), lanes);
    return {mean, 1.0f / sqrtf(squares * inverse_dim + p.epsilon)};
  }

  // x <- normalised(x) * weight, where `wanted`.
  ACUITY_DEVICE static void Normalise(const Args& args, int head, int first, bool wanted,
                                      Moments whole, Chunk& x) {
    const QkvAppendParams& p = args.p;
    const Moments moments = p.whole_norm ? whole : HeadMoments(p, x);
    if (!wanted) return;
    const bool is_q = head < p.shape.num_heads, own = p.own_weights || p.whole_norm;
    const int64_t weights_of = own ? head - (is_q ? 0 : p.shape.num_heads) : 0;
    const Chunk weight = LoadChunk<DType::kFloat32>(
        is_q ? p.q_norm : p.k_norm, weights_of * p.shape.head_dim + first, kChunk, args.aligned);
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      x.value[i] = (x.value[i] - moments.mean) * moments.scale * weight.value[i];
    }
  }

  // Of pair i. The angle is the float32 product, as in Hugging Face's models; beyond a knee a
  // second one is added.
  ACUITY_DEVICE static float Angle(const RopeParams& rope, int32_t position, int i) {
    const bool beyond = rope.inv_frequency_beyond != nullptr && position > rope.knee;
    const int32_t within = beyond ? rope.knee : position;
    const float angle = prim::Multiply(static_cast<float>(within), rope.inv_frequency[i]);
    if (!beyond) return angle;
    return prim::FusedMultiplyAdd(static_cast<float>(position - within),
                                  rope.inv_frequency_beyond[i], angle);
  }

  // Rotates the pairs of x that are within rotary_dim, where `wanted`.
  ACUITY_DEVICE static void Rotate(const Args& args, int32_t position, int first, bool wanted,
                                   Chunk& x) {
    const RopeParams& rope = args.p.rope;
    const bool rotates = wanted && first < rope.rotary_dim;
    if (rope.style == RopeStyle::kInterleaved) {
      ACUITY_UNROLL for (int i = 0; i < kChunk; i += 2) {
        if (!rotates || first + i >= rope.rotary_dim) continue;
        float sine, cosine;
        SinCos(Angle(rope, position, (first + i) / 2), &sine, &cosine);
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
      SinCos(Angle(rope, position, (lower ? first : first - half) + i), &sine, &cosine);
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
