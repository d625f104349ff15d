// attention_test.cc on the CPU: every instruction set of this machine, and 16 lanes in plain code.
#include "tests/kernels/attention_matrix.h"

namespace acuity::kernels {

AttentionMatrix Matrix() {
  return {{DType::kFloat32, DType::kBFloat16, DType::kFloat8},
          {64, 80, 128},
          {16, 32, 48, 96, 112, 192, 240, 256},
          {1, 3, 8},
          {1, 2, 32, 128, 1024}};
}

std::vector<AttentionBackend> Backends() {
  std::vector<AttentionBackend> backends;
  for (const NamedKernels& kernels : AllKernels()) {
    backends.push_back({kernels.name,
                        [kernels](const AttentionParams& params) -> std::string {
                          AttentionPlan plan;
                          PlanAttention(params.shape, params.batch, params.window, &plan);
                          std::vector<float> workspace(plan.workspace_floats);
                          RunAttentionWith(*kernels.kernels, params, plan, workspace.data(), {});
                          return "";
                        },
                        [](DType) { return Tolerance(); }});
  }
  return backends;
}

}  // namespace acuity::kernels
