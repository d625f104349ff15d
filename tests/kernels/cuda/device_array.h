// Memory that a launcher's pointers may point to: the GPU's where nvcc compiles the test, the
// host's where the kernels are emulated.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "kernels/cuda/prim/prim.h"
#endif

namespace acuity::kernels::cuda {

#ifdef __CUDACC__
inline void* Allocate(size_t bytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : nullptr;
}
inline void Free(void* memory) { cudaFree(memory); }
inline void Copy(void* to, const void* from, size_t bytes) {
  if (cudaMemcpy(to, from, bytes, cudaMemcpyDefault) != cudaSuccess) std::abort();
}
// Null, or what went wrong in a kernel since the last call.
inline const char* Finish() {
  const cudaError_t status = cudaDeviceSynchronize();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
inline void SetScheduleSeed(uint64_t) {}
#else
inline void* Allocate(size_t bytes) { return std::aligned_alloc(128, (bytes + 127) / 128 * 128); }
inline void Free(void* memory) { std::free(memory); }
inline void Copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
inline const char* Finish() { return nullptr; }
inline void SetScheduleSeed(uint64_t seed) { prim::emulation::SetSeed(seed); }
#endif

// A copy of `values` on the device that starts `offset` elements behind a multiple of 128 bytes.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values, size_t offset = 0)
      : size_(values.size()), memory_(Allocate((size_ + offset + 1) * sizeof(T)), Free) {
    if (memory_ == nullptr) std::abort();
    data_ = static_cast<T*>(memory_.get()) + offset;
    if (size_ > 0) Copy(data_, values.data(), size_ * sizeof(T));
  }
  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    if (size_ > 0) Copy(values.data(), data_, size_ * sizeof(T));
    return values;
  }

 private:
  size_t size_;
  std::unique_ptr<void, void (*)(void*)> memory_;
  T* data_ = nullptr;
};

}  // namespace acuity::kernels::cuda
