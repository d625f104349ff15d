// Sampling without a sort: one block for each row.
//
//   scan     maximum, its lowest id, NaN or infinity
//   weigh    w = e^((z - max) / temperature), kept in scratch: float32 in [0, 1], whose bits order
//   as their values do cut      top-k and top-p: the largest threshold w >= t that keeps enough, by
//   four-way search over w's 30 bits; of
//            the tokens at t itself the first `ties` by id stay
//   draw     first the warp's part of the vocabulary, then 128 tokens of it, then one lane's four
//
// Every pass reads the row from L2. Compile without fused multiply-adds: see
// kernels/sampling_math.h.
#pragma once

#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_cut.cuh"
#include "kernels/cuda/sample_draw.cuh"
#include "kernels/cuda/sample_row.cuh"
#include "kernels/sampling_math.h"

namespace acuity::kernels::cuda {

struct SampleKernel {
  using Args = SampleParams;
  static constexpr int kThreads = SampleRowView::kThreads;
  static constexpr int kMinBlocksPerSm = 1;  // two would leave 64 registers, and spill
  static_assert(SampleCut::kSharedDoubles >= SampleDraw::kSharedDoubles);
  static constexpr int kSharedBytes = SampleCut::kSharedDoubles * sizeof(double);

  ACUITY_DEVICE static void Run(const Args& args) {
    const int64_t index = prim::BlockIndex().x;
    const SampleRow params = args.params[index];
    const SampleRowView row(args, index);
    const SampleRowView::Best best = row.Scan(prim::SharedMemory<float>());
    if (!best.valid || params.temperature == 0) {
      if (prim::ThreadIndex() == 0) args.tokens[index] = best.valid ? best.id : -1;
      return;
    }
    row.Weigh(best.value, params.temperature);
    const prim::Shared<double> sums = prim::SharedMemory<double>();
    const SampleKept kept = SampleCut(row, sums).Cut(params);
    prim::BlockSync();  // the weights of other threads, and the sums of the last search
    SampleDraw(row, sums).Draw(kept, params.min_p, UniformAt(params.seed, params.position),
                               &args.tokens[index]);
  }
};

}  // namespace acuity::kernels::cuda
