#include "tests/kernels/cuda/emulated_attention.h"

#include <cmath>

#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::cuda {

const char* LaunchReal(const AttentionParams& params, const PlanCapacity& capacity,
                       const void* plan, float* workspace) {
  return RunAttention(params, capacity, plan, workspace, nullptr);
}

std::string RunEmulated(const AttentionParams& params, uint64_t seed, int32_t spare,
                        const Launcher& launch, PrefillWith prefill_with) {
  AttentionPlan plan;
  PlanAttention(params.shape, params.batch, params.window, &plan, prefill_with);
  PlanCapacity capacity = CapacityOf(plan);
  capacity.decode += spare;
  capacity.prefill += spare;
  capacity.merges += spare;
  std::vector<prim::Bits128> bytes(PlanBytes(capacity) / sizeof(prim::Bits128));
  if (!WritePlan(plan, capacity, bytes.data())) return "the plan does not fit its own capacity";
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> workspace(plan.workspace_floats + 1, kNan);
  prim::emulation::SetSeed(seed);
  if (const char* error = launch(params, capacity, bytes.data(), workspace.data())) return error;
  return std::isnan(workspace.back()) ? "" : "workspace overrun";
}

}  // namespace acuity::kernels::cuda
