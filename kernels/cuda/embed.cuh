// Rows of the embedding table, eight elements to a thread.
#pragma once

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/layer_ops.h"

namespace acuity::kernels::cuda {

// Blocks (x, y): row x, the y-th kBlockElements of it.
template <DType kType>
struct EmbedRowsKernel {
  struct Args {
    EmbedRowsParams p;
    bool aligned;  // as in AddNormKernel
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kBlockElements = kThreads * kChunk;

  ACUITY_DEVICE static void Run(const Args& args) {
    const EmbedRowsParams& p = args.p;
    const int64_t row = prim::BlockIndex().x;
    const int64_t at = (int64_t{prim::BlockIndex().y} * kThreads + prim::ThreadIndex()) * kChunk;
    if (at >= p.dim) return;
    const int count = ChunkCount(p.dim, at);
    int32_t token = p.tokens[row];
    if (token < -1) token = p.drawn[-2 - token];
    Chunk x = {};
    if (token >= 0) {
      x = LoadChunk<kType>(p.table, int64_t{token} * p.dim + at, count, args.aligned);
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        x.value[i] = prim::Multiply(x.value[i], p.scale);
      }
      if (p.position_table != nullptr) {
        const int64_t position = p.positions[row];
        const Chunk add =
            LoadChunk<kType>(p.position_table, position * p.dim + at, count, args.aligned);
        ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) x.value[i] += add.value[i];
      }
    }
    StoreChunk<DType::kFloat32>(p.residual, row * p.dim + at, count, args.aligned, x);
  }
};

}  // namespace acuity::kernels::cuda
