// The prefill kernels on warpgroups. A source of its own: compiled for sm_90a only.
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_warpgroup.cuh"

namespace acuity::kernels::cuda {
namespace {

template <int kHeadDim, DType kType>
const char* LaunchType(const AttentionArgs& args, int32_t blocks, void* stream) {
  const prim::Dim3 grid = {static_cast<uint32_t>(blocks), 1, 1};
  constexpr int kBytes = WarpgroupPrefillSharedBytes(kHeadDim);
  if (args.params.stats != nullptr) {
    using Kernel = WarpgroupPrefillKernel<Variant{kHeadDim, kType, true}>;
    return prim::Launch<Kernel>(grid, kBytes, args, stream);
  }
  using Kernel = WarpgroupPrefillKernel<Variant{kHeadDim, kType, false}>;
  return prim::Launch<Kernel>(grid, kBytes, args, stream);
}

template <int kHeadDim>
const char* LaunchHeadDim(const AttentionArgs& args, int32_t blocks, void* stream) {
  return args.params.shape.kv_dtype == DType::kBFloat16
             ? LaunchType<kHeadDim, DType::kBFloat16>(args, blocks, stream)
             : LaunchType<kHeadDim, DType::kFloat16>(args, blocks, stream);
}

}  // namespace

const char* LaunchWarpgroupPrefill(const AttentionArgs& args, int32_t blocks, void* stream) {
  return args.params.shape.head_dim == 64 ? LaunchHeadDim<64>(args, blocks, stream)
                                          : LaunchHeadDim<128>(args, blocks, stream);
}

}  // namespace acuity::kernels::cuda
