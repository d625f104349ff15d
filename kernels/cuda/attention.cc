#include "kernels/cuda/attention.h"

#include <bit>

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_variant.h"

namespace acuity::kernels::cuda {

const char* Supports(const AttentionShape& shape) {
  if (shape.num_kv_heads < 1 || shape.num_heads < 1 || shape.num_heads % shape.num_kv_heads != 0) {
    return "num_heads must be a positive multiple of num_kv_heads";
  }
  if (GroupSize(shape) > kPrefillRows) return "num_heads / num_kv_heads must be at most 64";
  if (shape.head_dim != 64 && shape.head_dim != 128 && shape.head_dim != 256) {
    return "head_dim must be 64, 128 or 256 on a GPU";
  }
  if (shape.block_size < kStripKeys || (shape.block_size & (shape.block_size - 1)) != 0) {
    return "block_size must be a power of two, 16 or more, on a GPU";
  }
  if (shape.kv_dtype != DType::kBFloat16 && shape.kv_dtype != DType::kFloat16) {
    return "kv_dtype must be bfloat16 or float16 on a GPU";
  }
  return nullptr;
}

const char* RunAttention(const AttentionParams& params, const PlanCapacity& capacity,
                         const void* plan, float* workspace, void* stream) {
  if (const char* reason = cuda::Supports(params.shape)) return reason;
  const DevicePlan device_plan = ReadPlan(capacity, plan);
  AttentionArgs args;
  args.params = params;
  args.workspace = workspace;
  args.page_shift = std::countr_zero(static_cast<unsigned>(params.shape.block_size));
  switch (params.shape.head_dim) {
    case 64:
      return LaunchAttention<64>(args, capacity, device_plan, stream);
    case 128:
      return LaunchAttention<128>(args, capacity, device_plan, stream);
    default:
      return LaunchAttention<256>(args, capacity, device_plan, stream);
  }
}

}  // namespace acuity::kernels::cuda
