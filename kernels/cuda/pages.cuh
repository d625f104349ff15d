// Whole pages copied or zeroed, 16 bytes to a thread.
#pragma once

#include "kernels/cuda/layer_ops.h"
#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::cuda {

// Blocks (x, y, z): the z-th part of page `x` of the list, in pool y.
struct FillPagesKernel {
  using Args = PagesParams;
  static constexpr int kThreads = 256;
  static constexpr int kMinBlocksPerSm = 4;
  static constexpr int kLoads = 4;  // in flight in each thread
  static constexpr int kBlockBytes = kThreads * kLoads * 16;

  ACUITY_DEVICE static void Run(const Args& p) {
    const prim::Dim3 block = prim::BlockIndex();
    char* pool = static_cast<char*>(p.pools[block.y]);
    char* to = pool + p.to[block.x] * p.page_bytes;
    const char* from = p.from == nullptr ? nullptr : pool + p.from[block.x] * p.page_bytes;
    const int64_t first = int64_t{block.z} * kBlockBytes + prim::ThreadIndex() * 16;
    prim::Bits128 bits[kLoads] = {};
    ACUITY_UNROLL for (int i = 0; i < kLoads; ++i) {
      const int64_t at = first + i * kThreads * 16;
      if (from != nullptr && at < p.page_bytes) bits[i] = prim::Load128(from + at);
    }
    ACUITY_UNROLL for (int i = 0; i < kLoads; ++i) {
      const int64_t at = first + i * kThreads * 16;
      if (at < p.page_bytes) prim::Store128(to + at, bits[i]);
    }
  }
};

}  // namespace acuity::kernels::cuda
