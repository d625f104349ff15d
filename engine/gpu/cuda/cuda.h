// The door to NVIDIA GPUs, in every build: cuda.cc where kernels/cuda is compiled, no_cuda.cc
// elsewhere. No CUDA and no LibTorch header.
#pragma once

#include "absl/status/status.h"
#include "engine/model/model_runner.h"

namespace acuity::engine {

// OK if this build has the CUDA engine and this machine a GPU that it runs on; else
// FailedPrecondition: what is missing. Quick; loads no library.
absl::Status CheckCuda();

// Makes GpuDecoders on the first GPU (CUDA_VISIBLE_DEVICES says which that is). The first loads
// libtorch_cuda, from the file that $ACUITY_LIBTORCH_CUDA names or from where LibTorch itself is:
// FailedPrecondition with the loader's words if it cannot.
RunnerFactory CudaRunner();

}  // namespace acuity::engine
