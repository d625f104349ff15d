#include "engine/gpu/cuda/cuda.h"

#include <utility>

#include "engine/gpu/cuda/cuda_device.h"
#include "engine/gpu/gpu_decoder.h"

namespace acuity::engine {

absl::Status CheckCuda() { return CheckCudaDevice(); }

RunnerFactory CudaRunner() {
  return [](const Checkpoint& checkpoint, ModelSpec spec, ModelOptions options,
            kernels::ParallelFor parallel) -> absl::StatusOr<std::unique_ptr<ModelRunner>> {
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCudaDevice();
    if (!device.ok()) return device.status();
    return GpuDecoder::Create(*std::move(device), checkpoint, std::move(spec), std::move(options),
                              parallel);
  };
}

}  // namespace acuity::engine
