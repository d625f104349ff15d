#include "engine/gpu/cuda/cuda.h"

namespace acuity::engine {

absl::Status CheckCuda() {
  return absl::FailedPreconditionError("this build has no CUDA engine: it had no nvcc");
}

RunnerFactory CudaRunner() {
  return [](const Checkpoint&, ModelSpec, ModelOptions,
            kernels::ParallelFor) -> absl::StatusOr<std::unique_ptr<ModelRunner>> {
    return CheckCuda();
  };
}

}  // namespace acuity::engine
