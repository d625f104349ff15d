// A mixture of experts: the choice, the sort of the choices by expert, the weighted sum.
#pragma once

#include <math.h>

#include <bit>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/reduce.cuh"

namespace acuity::kernels::cuda {

// A warp takes a row: lanes over experts while it looks for the next best, then over choices.
struct ChooseExpertsKernel {
  using Args = RouteExpertsParams;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * prim::kWarpSize;
  static constexpr int kMinBlocksPerSm = 8;

  ACUITY_DEVICE static void Run(const Args& p) {
    const int64_t row = int64_t{prim::BlockIndex().x} * kWarps + prim::WarpIndex();
    if (row >= p.rows) return;
    const float* logits = p.logits + row * p.count;
    const int lane = prim::LaneIndex();
    Choice previous = {Infinity(), -1}, mine = {0, 0};
    float highest = 0;
    ACUITY_NO_UNROLL
    for (int i = 0; i < p.per_token; ++i) {
      previous = NextBest(logits, p.count, previous);
      if (i == 0) highest = previous.logit;
      if (i == lane) mine = previous;
    }
    const bool chosen = lane < p.per_token;
    const float weight = chosen ? expf(mine.logit - highest) : 0.0f;
    float sum = weight;
    if (!p.normalised) {
      sum = 0;
      for (int e = lane; e < p.count; e += prim::kWarpSize) sum += expf(logits[e] - highest);
    }
    sum = WarpSum(sum + NanIn(logits, p.count));
    if (!chosen) return;
    p.experts[row * p.per_token + lane] = mine.expert;
    p.weights[row * p.per_token + lane] = weight / sum;
  }

 private:
  struct Choice {
    float logit;
    int expert;
  };

  ACUITY_DEVICE static float Infinity() { return std::bit_cast<float>(0x7f800000u); }

  // Larger logits first, of equal ones the lower expert.
  ACUITY_DEVICE static bool Before(const Choice& a, const Choice& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.expert < b.expert);
  }

  // The first one behind `previous`, in every lane. NaN counts as -infinity.
  ACUITY_DEVICE static Choice NextBest(const float* logits, int count, const Choice& previous) {
    Choice best = {-Infinity(), count};
    for (int e = prim::LaneIndex(); e < count; e += prim::kWarpSize) {
      const Choice here = {prim::Max(logits[e], -Infinity()), e};
      if (Before(previous, here) && Before(here, best)) best = here;
    }
    ACUITY_UNROLL for (int mask = prim::kWarpSize / 2; mask > 0; mask /= 2) {
      const Choice other = {prim::ShuffleXor(best.logit, mask),
                            prim::ShuffleXor(best.expert, mask)};
      if (Before(other, best)) best = other;
    }
    return best;
  }

  // NaN if this lane's logits hold one, else 0.
  ACUITY_DEVICE static float NanIn(const float* logits, int count) {
    float nan = 0;
    for (int e = prim::LaneIndex(); e < count; e += prim::kWarpSize) {
      if (logits[e] != logits[e]) nan = logits[e];
    }
    return nan;
  }
};

// Block e places the assignments of expert e: it counts those of lower experts, which come first,
// then walks over all of them in order. No atomics, one order.
struct PlaceSlotsKernel {
  using Args = RouteExpertsParams;
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocksPerSm = 4;
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kSharedBytes = 3 * kWarps * sizeof(int);

  ACUITY_DEVICE static void Run(const Args& p) {
    const int expert = static_cast<int>(prim::BlockIndex().x);
    const int size = static_cast<int>(p.rows) * p.per_token;
    const prim::Shared<int> scratch = prim::SharedMemory<int>();
    int lower = 0;
    for (int i = prim::ThreadIndex(); i < size; i += kThreads) {
      lower += p.experts[i] < expert ? 1 : 0;
    }
    int next = BlockSum<kWarps>(lower, scratch);
    if (prim::ThreadIndex() == 0) {
      p.begin[expert] = next;
      if (expert == 0) p.begin[p.count] = size;
    }
    int turn = 1;
    ACUITY_NO_UNROLL
    for (int base = 0; base < size; base += kThreads) {
      const int i = base + prim::ThreadIndex();
      const bool mine = i < size && p.experts[i] == expert;
      const prim::Shared<int> counts = scratch + turn * kWarps;
      turn = 3 - turn;  // the next turn's counts lie elsewhere: one barrier a turn
      int all = 0;
      const int at = next + Earlier(mine, counts, &all);
      next += all;
      if (!mine) continue;
      p.slots[i] = at;
      p.slot_rows[at] = i / p.per_token;
    }
  }

 private:
  // How many threads before this one are `mine`; *all counts every one.
  ACUITY_DEVICE static int Earlier(bool mine, prim::Shared<int> counts, int* all) {
    const uint32_t votes = prim::Ballot(mine);
    const int warp = prim::WarpIndex(), lane = prim::LaneIndex();
    if (lane == 0) counts[warp] = CountBits(votes);
    prim::BlockSync();
    int earlier = CountBits(votes & ((1u << lane) - 1));
    ACUITY_UNROLL for (int i = 0; i < kWarps; ++i) {
      const int count = counts[i];
      if (i < warp) earlier += count;
      *all += count;
    }
    return earlier;
  }

  ACUITY_DEVICE static int CountBits(uint32_t bits) {
    bits -= bits >> 1 & 0x55555555u;
    bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
    return static_cast<int>(((bits + (bits >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
  }
};

// Blocks (x, y): row x, the y-th kBlockElements of it.
template <DType kType>
struct CombineExpertsKernel {
  struct Args {
    CombineExpertsParams p;
    bool aligned;  // as in AddNormKernel
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kBlockElements = kThreads * kChunk;

  ACUITY_DEVICE static void Run(const Args& args) {
    const CombineExpertsParams& p = args.p;
    const int64_t row = prim::BlockIndex().x;
    const int64_t at = (int64_t{prim::BlockIndex().y} * kThreads + prim::ThreadIndex()) * kChunk;
    if (at >= p.dim) return;
    const int count = ChunkCount(p.dim, at);
    Chunk sum = {};
    for (int64_t i = row * p.per_token; i < (row + 1) * p.per_token; ++i) {
      const float weight = p.weights[i];
      const Chunk x =
          LoadChunk<kType>(p.routed, int64_t{p.slots[i]} * p.dim + at, count, args.aligned);
      ACUITY_UNROLL for (int j = 0; j < kChunk; ++j) sum.value[j] += weight * x.value[j];
    }
    StoreChunk<kType>(p.out, row * p.dim + at, count, args.aligned, sum);
  }
};

}  // namespace acuity::kernels::cuda
