// scale * x, softly capped, eight elements to a thread.
#pragma once

#include <math.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/layer_ops.h"

namespace acuity::kernels::cuda {

// Blocks (x, y): row x, the y-th kBlockElements of it.
template <DType kType>
struct ScaleAndCapKernel {
  struct Args {
    ScaleAndCapParams p;
    bool aligned;  // as in AddNormKernel
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kBlockElements = kThreads * kChunk;

  ACUITY_DEVICE static void Run(const Args& args) {
    const ScaleAndCapParams& p = args.p;
    const int64_t row = prim::BlockIndex().x;
    const int64_t at = (int64_t{prim::BlockIndex().y} * kThreads + prim::ThreadIndex()) * kChunk;
    if (at >= p.dim) return;
    const int count = ChunkCount(p.dim, at);
    Chunk x = LoadChunk<kType>(p.in, row * p.dim + at, count, args.aligned);
    if (p.cap == 0) {
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) x.value[i] *= p.scale;
    } else {
      const float inner = p.scale / p.cap;
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        x.value[i] = p.cap * tanhf(inner * x.value[i]);
      }
    }
    StoreChunk<DType::kFloat32>(p.out, row * p.out_stride + at, count, args.aligned, x);
  }
};

}  // namespace acuity::kernels::cuda
