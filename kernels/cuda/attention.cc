#include "kernels/cuda/attention.h"

#include <bit>

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_variant.h"

namespace acuity::kernels::cuda {
namespace {

template <int kHeadDim>
const char* LaunchHeadDim(const AttentionArgs& args, const PlanCapacity& capacity,
                          const DevicePlan& plan, void* stream) {
  switch (args.params.shape.kv_dtype) {
    case DType::kBFloat16:
      return LaunchAttention<kHeadDim, DType::kBFloat16>(args, capacity, plan, stream);
    case DType::kFloat16:
      return LaunchAttention<kHeadDim, DType::kFloat16>(args, capacity, plan, stream);
    default:
      return LaunchAttention<kHeadDim, DType::kFloat8>(args, capacity, plan, stream);
  }
}

}  // namespace

const char* RunAttention(const AttentionParams& params, const PlanCapacity& capacity,
                         const void* plan, float* workspace, void* stream) {
  const char* reason = capacity.prefill_with == PrefillWith::kWarps
                           ? cuda::Supports(params.shape)
                           : SupportsWarpgroups(params.shape, params.logit_softcap);
  if (reason != nullptr) return reason;
  const DevicePlan device_plan = ReadPlan(capacity, plan);
  AttentionArgs args;
  args.params = params;
  args.workspace = workspace;
  args.page_shift = std::countr_zero(static_cast<unsigned>(params.shape.block_size));
  switch (params.shape.head_dim) {
    case 64:
      return LaunchHeadDim<64>(args, capacity, device_plan, stream);
    case 128:
      return LaunchHeadDim<128>(args, capacity, device_plan, stream);
    default:
      return LaunchHeadDim<256>(args, capacity, device_plan, stream);
  }
}

}  // namespace acuity::kernels::cuda
