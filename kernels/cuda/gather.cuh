// Rows picked out of a matrix, as bytes.
#pragma once

#include "kernels/cuda/layer_ops.h"
#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::cuda {

// Blocks (x, y): row x of `out`, the y-th kBlockUnits units of it.
template <typename Unit>
struct GatherRowsKernel {
  using Args = GatherRowsParams;
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kLoads = 4;  // in flight in each thread
  static constexpr int kBlockUnits = kThreads * kLoads;

  ACUITY_DEVICE static void Run(const Args& p) {
    const int64_t units = p.row_bytes / static_cast<int64_t>(sizeof(Unit));
    const int64_t row = p.rows[prim::BlockIndex().x];
    const Unit* from = row < 0 ? nullptr : static_cast<const Unit*>(p.in) + row * units;
    Unit* to = static_cast<Unit*>(p.out) + int64_t{prim::BlockIndex().x} * units;
    const int64_t first = int64_t{prim::BlockIndex().y} * kBlockUnits + prim::ThreadIndex();
    Unit bits[kLoads] = {};
    ACUITY_UNROLL for (int i = 0; i < kLoads; ++i) {
      const int64_t at = first + i * kThreads;
      if (from != nullptr && at < units) bits[i] = Load(from + at);
    }
    ACUITY_UNROLL for (int i = 0; i < kLoads; ++i) {
      const int64_t at = first + i * kThreads;
      if (at < units) Store(to + at, bits[i]);
    }
  }

 private:
  ACUITY_DEVICE static prim::Bits128 Load(const prim::Bits128* from) { return prim::Load128(from); }
  ACUITY_DEVICE static uint32_t Load(const uint32_t* from) { return *from; }
  ACUITY_DEVICE static void Store(prim::Bits128* to, const prim::Bits128& bits) {
    prim::Store128(to, bits);
  }
  ACUITY_DEVICE static void Store(uint32_t* to, uint32_t bits) { *to = bits; }
};

}  // namespace acuity::kernels::cuda
