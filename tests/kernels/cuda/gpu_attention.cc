// attention_test.cc on a GPU: the matrix, and a backend that copies everything there and back. No
// GPU has run it yet.
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/attention_matrix.h"
#include "tests/kernels/cuda/device_attention.h"

namespace acuity::kernels {
namespace {

std::string RunOnGpu(const AttentionParams& params, cuda::PrefillWith prefill_with) {
  if (const char* reason = cuda::Supports(params.shape)) return reason;
  cuda::AttentionPlan plan;
  cuda::PlanAttention(params.shape, params.batch, params.window, &plan, prefill_with);
  const cuda::PlanCapacity capacity = cuda::CapacityOf(plan);
  std::vector<char> bytes(static_cast<size_t>(cuda::PlanBytes(capacity)));
  if (!cuda::WritePlan(plan, capacity, bytes.data())) return "a plan beyond its own capacity";

  const cuda::DeviceAttention device(params);
  cuda::DeviceArray<char> device_plan(bytes);
  cuda::DeviceArray<float> workspace(
      std::vector<float>(static_cast<size_t>(plan.workspace_floats + 1)));
  const char* error =
      cuda::RunAttention(device.params(), capacity, device_plan.data(), workspace.data(), nullptr);
  if (error == nullptr) error = cuda::Finish();
  if (error != nullptr) return error;
  device.ReadBack();
  return "";
}

}  // namespace

AttentionMatrix Matrix() {
  return {{DType::kBFloat16, DType::kFloat16, DType::kFloat8},
          {64, 128},
          {256},
          {1, 3, 4, 8},
          {16, 32, 128, 1024}};
}

// The kernel on warpgroups too, where the GPU has wgmma and the kernel takes the call.
std::vector<AttentionBackend> Backends() {
  const auto warps = [](const AttentionParams& params) {
    return RunOnGpu(params, cuda::PrefillWith::kWarps);
  };
  const auto warpgroups = [](const AttentionParams& params) {
    const bool taken = cuda::SupportsWarpgroups(params.shape, params.logit_softcap) == nullptr;
    return RunOnGpu(params, taken ? cuda::PrefillWith::kWarpgroups : cuda::PrefillWith::kWarps);
  };
  std::vector<AttentionBackend> backends = {{"gpu", warps, RoundedTolerance}};
  if (cuda::HasWarpgroups()) backends.push_back({"gpu warpgroups", warpgroups, RoundedTolerance});
  return backends;
}

}  // namespace acuity::kernels
