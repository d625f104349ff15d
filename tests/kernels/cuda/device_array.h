// Memory that a launcher's pointers may point to. Two machines define it: device_array_emulated.cc,
// the host's for the emulated kernels, and device_array_cuda.cc, a GPU's. So the same test objects
// are linked for both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace acuity::kernels::cuda {

void* Allocate(size_t bytes);  // aligned to 128; aborts if there is none
void Free(void* memory);
void Copy(void* to, const void* from, size_t bytes);  // either way
// Waits for the kernels: null, or what went wrong in one since the last call.
const char* Finish();
// Whether kernels for sm_90a run.
bool HasWarpgroups();
// Draws the schedules of the launches that follow; a GPU has its own.
void SetScheduleSeed(uint64_t seed);

// A copy of `values` on the device that starts `offset` elements behind a multiple of 128 bytes.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values, size_t offset = 0)
      : size_(values.size()), memory_(Allocate((size_ + offset) * sizeof(T)), Free) {
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
