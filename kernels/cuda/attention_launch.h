// Between attention.cc and the kernels: what a plan looks like on the device, and one launcher for
// each head dimension and type of K and V, compiled in sources of their own.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_variant.h"

namespace acuity::kernels::cuda {

// Device pointers into a written plan.
struct DevicePlan {
  const int32_t* counts = nullptr;  // of decode, prefill, merges: what there is, not the capacity
  const AttentionTask* decode = nullptr;
  const AttentionTask* prefill = nullptr;
  const MergeTask* merges = nullptr;
};
DevicePlan ReadPlan(const PlanCapacity& capacity, const void* plan);

// Launches `blocks` blocks of the prefill kernel on warpgroups over args.tasks, of which there are
// *args.count; null or why not. The GPU must be of sm_90.
const char* LaunchWarpgroupPrefill(const AttentionArgs& args, int32_t blocks, void* stream);

// Launches what the capacity has room for: decode, prefill, then the merges of both.
template <int kHeadDim, DType kType>
const char* LaunchAttention(const AttentionArgs& args, const PlanCapacity& capacity,
                            const DevicePlan& plan, void* stream);

}  // namespace acuity::kernels::cuda
