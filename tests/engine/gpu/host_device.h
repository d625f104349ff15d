// A Device that is this machine: memory that starts as NaN, a stream that does nothing before it is
// waited for, on which the emulated kernels run, and faults at will.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/gpu/device.h"
#include "kernels/cuda/prim/host_stream.h"

namespace acuity::engine {

class HostDevice final : public Device {
 public:
  // What the "device" does wrong, and what it has done. Shared with the test, which has given the
  // device away.
  struct Control {
    int64_t memory_bytes = int64_t{1} << 30;
    std::string fault;            // of what is waited for next; "": none
    bool fault_is_fatal = false;  // the device is lost with it
    bool refuse_captures = false;
    bool refuse_products = false;

    int64_t allocated_bytes = 0;
    int allocations = 0, captures = 0, replays = 0, copies_to_host = 0;
    int overlaps = 0;  // marks that were set while what is before another had not run
    int64_t bytes_to_host = 0;
  };

  explicit HostDevice(std::shared_ptr<Control> control) : control_(std::move(control)) {}

  std::string name() const override { return "emulated GPU"; }
  void* stream() const override { return &work_; }
  absl::StatusOr<int64_t> FreeBytes() override {
    return control_->memory_bytes - control_->allocated_bytes;
  }
  absl::Status health() const override { return health_; }
  absl::StatusOr<DeviceMemory> Allocate(std::string_view what, int64_t bytes) override;
  absl::StatusOr<DeviceMemory> AllocatePinned(std::string_view what, int64_t bytes) override;
  absl::Status CopyToDevice(void* to, const void* from, int64_t bytes) override;
  absl::Status CopyToHost(void* to, const void* from, int64_t bytes) override;
  absl::Status Zero(void* to, int64_t bytes) override;
  absl::Status Gemm(const DeviceGemm& gemm) override;
  absl::Status Synchronise() override { return RunFirst(work_.size()); }
  absl::Status Mark(int mark) override;
  absl::Status Wait(int mark) override { return RunFirst(marks_[static_cast<size_t>(mark)]); }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      const std::function<absl::Status()>& enqueue) override;
  absl::Status Replay(const Graph& graph) override;

 private:
  // The first `count` of what is enqueued.
  absl::Status RunFirst(size_t count);

  const std::shared_ptr<Control> control_;
  mutable kernels::prim::emulation::Work work_;  // enqueued and not waited for
  std::array<size_t, kMarks> marks_ = {};        // how many of them are before each mark
  bool capturing_ = false;
  absl::Status health_;
};

}  // namespace acuity::engine
