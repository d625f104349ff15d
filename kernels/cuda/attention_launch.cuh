// The launch table: from what a call asks for to the kernel that was compiled for it.
#pragma once

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_merge.cuh"
#include "kernels/cuda/attention_prefill.cuh"

namespace acuity::kernels::cuda {

template <Variant kV>
const char* LaunchVariant(AttentionArgs args, const PlanCapacity& capacity, const DevicePlan& plan,
                          void* stream) {
  const auto blocks = [](int32_t n) { return prim::Dim3{static_cast<uint32_t>(n), 1, 1}; };
  args.tasks = plan.decode;
  args.count = &plan.counts[0];
  const char* error = prim::Launch<DecodeKernel<kV>>(
      blocks(capacity.decode), DecodeSharedBytes(kV.head_dim, kV.type), args, stream);
  if (error != nullptr) return error;
  args.tasks = plan.prefill;
  args.count = &plan.counts[1];
  error =
      capacity.prefill_with == PrefillWith::kWarpgroups
          ? LaunchWarpgroupPrefill(args, capacity.prefill, stream)
          : prim::Launch<PrefillKernel<kV>>(blocks(capacity.prefill),
                                            PrefillSharedBytes(kV.head_dim, kV.type), args, stream);
  if (error != nullptr) return error;
  args.merges = plan.merges;
  args.count = &plan.counts[2];
  // A merge is the same whatever the logits went through and K's type was.
  constexpr Variant kMerge = {kV.head_dim, DType::kBFloat16, kV.stats};
  return prim::Launch<MergeKernel<kMerge>>(blocks(capacity.merges), 0, args, stream);
}

template <int kHeadDim, DType kType>
const char* LaunchAttention(const AttentionArgs& args, const PlanCapacity& capacity,
                            const DevicePlan& plan, void* stream) {
  const bool stats = args.params.stats != nullptr;
  if (args.params.logit_softcap > 0) {
    return stats
               ? LaunchVariant<Variant{kHeadDim, kType, true, true}>(args, capacity, plan, stream)
               : LaunchVariant<Variant{kHeadDim, kType, false, true}>(args, capacity, plan, stream);
  }
  return stats
             ? LaunchVariant<Variant{kHeadDim, kType, true, false}>(args, capacity, plan, stream)
             : LaunchVariant<Variant{kHeadDim, kType, false, false}>(args, capacity, plan, stream);
}

}  // namespace acuity::kernels::cuda
