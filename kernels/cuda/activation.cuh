// activation(gate) * up, eight elements to a thread.
#pragma once

#include <math.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/layer_ops.h"

namespace acuity::kernels::cuda {

// x / (1 + e^-y), with e^-|y|, which cannot overflow.
ACUITY_DEVICE float TimesSigmoid(float x, float y) {
  constexpr float kLog2E = 1.44269504f;
  const float e = prim::Exp2((y < 0 ? y : -y) * kLog2E);
  return x * (y < 0 ? e : 1.0f) * prim::Reciprocal(1.0f + e);
}

// As kernels/layer_ops.h defines them. `up` is 1 where there is none.
ACUITY_DEVICE float Activated(Activation activation, float x, float up) {
  switch (activation) {
    case Activation::kSilu:
      return TimesSigmoid(x, x) * up;
    case Activation::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.707106781f)) * up;  // 1 / sqrt 2
    case Activation::kGeluTanh:  // (1 + tanh u) / 2 = sigmoid(2u); 2 sqrt(2 / pi)
      return TimesSigmoid(x, 1.59576912f * (x + 0.044715f * x * x * x)) * up;
    case Activation::kClampedSwiglu: {
      const float g = x < 7.0f ? x : 7.0f;
      const float u = up < -7.0f ? -7.0f : (up < 7.0f ? up : 7.0f);
      return TimesSigmoid(g, 1.702f * g) * (u + 1.0f);
    }
  }
  return 0;
}

// Blocks (x, y): kThreads chunks of row x, the y-th such piece of it.
template <DType kType>
struct ActivateKernel {
  struct Args {
    ActivateParams p;
    bool aligned;  // as in AddNormKernel
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kBlockElements = kThreads * kChunk;

  ACUITY_DEVICE static void Run(const Args& args) {
    const ActivateParams& p = args.p;
    const int64_t at =
        int64_t{prim::BlockIndex().y} * kBlockElements + prim::ThreadIndex() * kChunk;
    if (at >= p.dim) return;
    const int64_t row = prim::BlockIndex().x;
    const int64_t in = row * (p.gated ? 2 * p.dim : p.dim) + at;
    const int count = ChunkCount(p.dim, at);
    Chunk x = LoadChunk<kType>(p.in, in, count, args.aligned);
    Chunk up;
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) up.value[i] = 1.0f;
    if (p.gated) up = LoadChunk<kType>(p.in, in + p.dim, count, args.aligned);
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
      x.value[i] = Activated(p.activation, x.value[i], up.value[i]);
    }
    StoreChunk<kType>(p.out, row * p.dim + at, count, args.aligned, x);
  }
};

}  // namespace acuity::kernels::cuda
