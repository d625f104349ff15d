// The attention kernels of head_dim 128, 16-bit pages.
#include "kernels/cuda/attention_launch.cuh"

namespace acuity::kernels::cuda {

template const char* LaunchAttention<128, DType::kBFloat16>(const AttentionArgs& args,
                                                            const PlanCapacity& capacity,
                                                            const DevicePlan& plan, void* stream);
template const char* LaunchAttention<128, DType::kFloat16>(const AttentionArgs& args,
                                                           const PlanCapacity& capacity,
                                                           const DevicePlan& plan, void* stream);

}  // namespace acuity::kernels::cuda
