// What the lanes of a warp, the warps of a warpgroup or those of a block do together on the
// emulated machine.
#pragma once

#include <cstdint>

namespace acuity::kernels::prim::emulation {

enum class Collective : uint8_t {
  kBlockSync,
  kWarpSync,
  kShuffle,
  kBallot,
  kLoadMatrix4,
  kLoadMatrix4Transposed,
  kMmaBFloat16,
  kMmaFloat16,
  // warpgroup_host.h: of a warp, then of a warpgroup.
  kArrive,
  kArriveWhenCopied,
  kWaitBarrier,
  kFenceAsyncProxy,
  kFenceProducts,
  kCommitProducts,
  kWaitProducts,
  kWarpgroupSync,
  kMultiply
};

// What a thread brings to a collective and takes from it.
struct Operands {
  uint32_t in[10] = {};           // kShuffle: value, lane; kBallot: value; kMma: a, b, c
  const uint16_t* row = nullptr;  // kLoadMatrix4
  const void* what = nullptr;     // a barrier; kMultiply: a Product
  uint32_t out[4] = {};
};

// Waits for the others, and for the result.
void Meet(Collective collective, Operands& operands);

}  // namespace acuity::kernels::prim::emulation
