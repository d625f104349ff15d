// Residual add and normalisation: one block for each row.
#pragma once

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/layer_ops.h"
#include "kernels/cuda/reduce.cuh"

namespace acuity::kernels::cuda {

// A thread takes chunks kThreads apart and meets the same ones in every pass, so what it wrote to
// the residual it reads back without a barrier; the second reading comes from L1 or L2.
template <DType kType>
struct AddNormKernel {
  struct Args {
    AddNormParams p;
    bool aligned;  // all rows of all arrays start at multiples of 16 bytes, and dim is a multiple
                   // of kChunk
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocksPerSm = 4;
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kSharedBytes = 2 * kWarps * sizeof(float);

  ACUITY_DEVICE static void Run(const Args& args) {
    const AddNormParams& p = args.p;
    const int64_t row = int64_t{prim::BlockIndex().x} * p.dim;
    const prim::Shared<float> scratch = prim::SharedMemory<float>();
    if (p.norm.weight == nullptr) return AddOnly(args, row);
    const bool layer = p.norm.kind == NormKind::kLayer;
    const float inverse_dim = 1.0f / static_cast<float>(p.dim);

    float mean = 0;
    float squares = Add(args, row, layer);
    if (layer) {
      mean = BlockSum<kWarps>(squares, scratch + kWarps) * inverse_dim;
      squares = SquaresAround(args, row, mean);
    }
    const float variance = BlockSum<kWarps>(squares, scratch) * inverse_dim;
    const float scale = 1.0f / sqrtf(variance + p.norm.epsilon);
    for (int at = First(); at < p.dim; at += kThreads * kChunk) {
      const int count = ChunkCount(p.dim, at);
      Chunk x = LoadChunk<DType::kFloat32>(p.residual, row + at, count, args.aligned);
      const Chunk weight = LoadChunk<DType::kFloat32>(p.norm.weight, at, count, args.aligned);
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        x.value[i] = (x.value[i] - mean) * scale * weight.value[i];
      }
      if (p.norm.bias != nullptr) {
        const Chunk bias = LoadChunk<DType::kFloat32>(p.norm.bias, at, count, args.aligned);
        ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) x.value[i] += bias.value[i];
      }
      StoreChunk<kType>(p.out, row + at, count, args.aligned, x);
    }
  }

 private:
  ACUITY_DEVICE static int First() { return prim::ThreadIndex() * kChunk; }

  // The chunk of the residual stream at `at`, with delta added.
  ACUITY_DEVICE static Chunk AddChunk(const Args& args, int64_t row, int at, int count) {
    const AddNormParams& p = args.p;
    Chunk x = LoadChunk<DType::kFloat32>(p.residual, row + at, count, args.aligned);
    if (p.delta == nullptr) return x;
    const Chunk delta = LoadChunk<kType>(p.delta, row + at, count, args.aligned);
    ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) x.value[i] += p.delta_scale * delta.value[i];
    StoreChunk<DType::kFloat32>(p.residual, row + at, count, args.aligned, x);
    return x;
  }

  // Without a norm: the sum, rounded, if it is wanted.
  ACUITY_DEVICE static void AddOnly(const Args& args, int64_t row) {
    for (int at = First(); at < args.p.dim; at += kThreads * kChunk) {
      const int count = ChunkCount(args.p.dim, at);
      const Chunk x = AddChunk(args, row, at, count);
      if (args.p.out != nullptr) StoreChunk<kType>(args.p.out, row + at, count, args.aligned, x);
    }
  }

  // Adds this thread's part of delta; returns its part of sum x (kLayer) or sum x^2 (kRms).
  ACUITY_DEVICE static float Add(const Args& args, int64_t row, bool layer) {
    float sum = 0;
    for (int at = First(); at < args.p.dim; at += kThreads * kChunk) {
      const Chunk x = AddChunk(args, row, at, ChunkCount(args.p.dim, at));
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        sum += layer ? x.value[i] : x.value[i] * x.value[i];
      }
    }
    return sum;
  }

  ACUITY_DEVICE static float SquaresAround(const Args& args, int64_t row, float mean) {
    float sum = 0;
    for (int at = First(); at < args.p.dim; at += kThreads * kChunk) {
      const int count = ChunkCount(args.p.dim, at);
      const Chunk x = LoadChunk<DType::kFloat32>(args.p.residual, row + at, count, args.aligned);
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        const float centred = i < count ? x.value[i] - mean : 0.0f;
        sum += centred * centred;
      }
    }
    return sum;
  }
};

}  // namespace acuity::kernels::cuda
