// attention_test.cc on a GPU: the matrix, and a backend that copies everything there and back. No
// GPU has run it yet.
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/attention_matrix.h"
#include "tests/kernels/cuda/device_attention.h"

namespace acuity::kernels {
namespace {

std::string RunOnGpu(const AttentionParams& params) {
  if (const char* reason = cuda::Supports(params.shape)) return reason;
  cuda::AttentionPlan plan;
  cuda::PlanAttention(params.shape, params.batch, params.window, &plan);
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
  return {{DType::kBFloat16, DType::kFloat16}, {64, 128}, {256}, {1, 3, 4, 8}, {16, 32, 128, 1024}};
}

std::vector<AttentionBackend> Backends() { return {{"gpu", RunOnGpu, RoundedTolerance}}; }

}  // namespace acuity::kernels
