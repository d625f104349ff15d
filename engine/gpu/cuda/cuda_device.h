// The first NVIDIA GPU as a Device: memory, copies and graphs of the CUDA runtime, matrix products
// of cuBLAS through LibTorch, on one of LibTorch's streams. No GPU has run it yet.
#pragma once

#include <memory>

#include "engine/gpu/device.h"

namespace acuity::engine {

// OK, or FailedPrecondition: there is no driver, no GPU, or one that is too old. Loads nothing.
absl::Status CheckCudaDevice();

// The same errors, and those of loading libtorch_cuda and of the first launch. Devices share the
// GPU and its memory, each with a stream of its own.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice();

}  // namespace acuity::engine
