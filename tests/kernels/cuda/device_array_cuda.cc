#include <cuda_runtime_api.h>

#include <cstdio>

#include "tests/kernels/cuda/device_array.h"

namespace acuity::kernels::cuda {
namespace {

void Check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

}  // namespace

void* Allocate(size_t bytes) {
  void* memory = nullptr;
  Check(cudaMalloc(&memory, bytes + 1), "cudaMalloc");
  return memory;
}
void Free(void* memory) { cudaFree(memory); }
void Copy(void* to, const void* from, size_t bytes) {
  Check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
}
const char* Finish() {
  const cudaError_t status = cudaDeviceSynchronize();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
bool HasWarpgroups() {
  int major = 0, minor = 0;
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "attribute");
  Check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "attribute");
  return major == 9 && minor == 0;
}
void SetScheduleSeed(uint64_t) {}

}  // namespace acuity::kernels::cuda
