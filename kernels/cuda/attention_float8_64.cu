// The attention kernels of head_dim 64, 8-bit pages.
#include "kernels/cuda/attention_launch.cuh"

namespace acuity::kernels::cuda {

template const char* LaunchAttention<64, DType::kFloat8>(const AttentionArgs& args,
                                                         const PlanCapacity& capacity,
                                                         const DevicePlan& plan, void* stream);

}  // namespace acuity::kernels::cuda
