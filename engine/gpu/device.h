// A GPU as the decoder needs it: memory, copies, matrix products and graphs on one stream. Two
// implementations: cuda_device.h, and the host's in tests/engine/gpu, on which the emulated kernels
// run.
//
// Everything is enqueued on stream() in order and returns at once; Synchronise and Wait wait, and
// report what went wrong in between. One thread at a time. A device that is lost (health) stays so:
// every later call fails with the same status, and only a new process helps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace acuity::engine {

// Memory that the device, or the host for it, has allocated. Move-only; ends before the device.
class DeviceMemory {
 public:
  using Deleter = std::function<void(void*)>;

  DeviceMemory() = default;
  DeviceMemory(void* data, int64_t bytes, Deleter free)
      : data_(data, std::move(free)), bytes_(bytes) {}

  template <typename T>
  T* As() const {
    return static_cast<T*>(data_.get());
  }
  int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, Deleter> data_{nullptr, [](void*) {}};
  int64_t bytes_ = 0;
};

// y = x W^T (+ bias). x: [m, k], weight: [n, k], both 16-bit and dense, bias: [n] of y's type. y:
// [m, n], 16-bit or float32; sums are float32, rounded once. Device pointers. How a row's sums are
// ordered may depend on m.
struct DeviceGemm {
  kernels::DType dtype = kernels::DType::kBFloat16;  // of x, weight, and y unless float_out
  const void* x = nullptr;
  int64_t m = 0, n = 0, k = 0;
  const void* weight = nullptr;
  const void* bias = nullptr;  // or null; not with float_out
  bool float_out = false;
  void* y = nullptr;
};

class Device {
 public:
  static constexpr int kMarks = 2;

  // What was captured; replayed on the device that made it, with the pointers and sizes that it was
  // captured with.
  class Graph {
   public:
    virtual ~Graph() = default;
  };

  virtual ~Device() = default;

  virtual std::string name() const = 0;  // "NVIDIA H100 80GB HBM3"
  virtual void* stream() const = 0;      // a cudaStream_t
  virtual absl::StatusOr<int64_t> FreeBytes() = 0;
  virtual absl::Status health() const = 0;

  // Not initialised, aligned to 256. ResourceExhausted names `what`, the bytes and what is free.
  virtual absl::StatusOr<DeviceMemory> Allocate(std::string_view what, int64_t bytes) = 0;
  // The host's, which the device copies from and to without waiting.
  virtual absl::StatusOr<DeviceMemory> AllocatePinned(std::string_view what, int64_t bytes) = 0;

  // The host's side is pinned, and left alone until the device was waited for.
  virtual absl::Status CopyToDevice(void* to, const void* from, int64_t bytes) = 0;
  virtual absl::Status CopyToHost(void* to, const void* from, int64_t bytes) = 0;
  virtual absl::Status Zero(void* to, int64_t bytes) = 0;
  virtual absl::Status Gemm(const DeviceGemm& gemm) = 0;

  // Internal: what went wrong in anything enqueued and not waited for yet.
  virtual absl::Status Synchronise() = 0;
  // The same of what was enqueued before a mark, 0 .. kMarks - 1, was set last.
  virtual absl::Status Mark(int mark) = 0;
  virtual absl::Status Wait(int mark) = 0;

  // Calls `enqueue`, whose work is not done but captured. It may not allocate, copy to or from the
  // host, or synchronise, and must have run before outside of a capture (libraries set themselves
  // up).
  virtual absl::StatusOr<std::unique_ptr<Graph>> Capture(
      const std::function<absl::Status()>& enqueue) = 0;
  virtual absl::Status Replay(const Graph& graph) = 0;
};

}  // namespace acuity::engine
