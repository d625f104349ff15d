#include <utility>

#include "engine/gpu/gpu_decoder.h"
#include "tests/engine/gpu/host_device.h"
#include "tests/engine/gpu/runner_under_test.h"

namespace acuity::engine {

RunnerFactory RunnerUnderTest() {
  return [](const Checkpoint& checkpoint, ModelSpec spec, ModelOptions options,
            kernels::ParallelFor parallel) {
    auto control = std::make_shared<HostDevice::Control>();
    control->memory_bytes = int64_t{8} << 30;
    return GpuDecoder::Create(std::make_unique<HostDevice>(std::move(control)), checkpoint,
                              std::move(spec), std::move(options), parallel);
  };
}

}  // namespace acuity::engine
