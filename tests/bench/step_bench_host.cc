// A device that takes all work and does none: what is left of a step is the host's. Of what CUDA's
// own calls cost (a few copies, an event and a launch of a graph a step) it knows nothing.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/gpu/gpu_decoder.h"
#include "kernels/cuda/prim/host_stream.h"
#include "tests/engine/forwarding_runner.h"
#include "tests/engine/gpu/runner_under_test.h"

namespace acuity::engine {
namespace {

constexpr int32_t kToken = 300;  // that everybody draws

class IdleDevice final : public Device {
 public:
  std::string name() const override { return "none: the host's share"; }
  void* stream() const override { return &work_; }
  absl::StatusOr<int64_t> FreeBytes() override { return int64_t{1} << 40; }
  absl::Status health() const override { return absl::OkStatus(); }
  absl::StatusOr<DeviceMemory> Allocate(std::string_view, int64_t bytes) override {
    return DeviceMemory(std::calloc(1, static_cast<size_t>(bytes)), bytes, std::free);
  }
  absl::StatusOr<DeviceMemory> AllocatePinned(std::string_view what, int64_t bytes) override {
    return Allocate(what, bytes);
  }
  absl::Status CopyToDevice(void*, const void*, int64_t) override { return absl::OkStatus(); }
  absl::Status CopyToHost(void*, const void*, int64_t) override { return absl::OkStatus(); }
  absl::Status Zero(void*, int64_t) override { return absl::OkStatus(); }
  absl::Status Gemm(const DeviceGemm&) override { return absl::OkStatus(); }
  absl::Status Synchronise() override { return absl::OkStatus(); }
  absl::Status Mark(int) override {
    work_.clear();
    return absl::OkStatus();
  }
  absl::Status Wait(int) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      const std::function<absl::Status()>& enqueue) override {
    if (absl::Status status = enqueue(); !status.ok()) return status;
    return std::make_unique<Graph>();
  }
  absl::Status Replay(const Graph&) override { return absl::OkStatus(); }

 private:
  mutable kernels::prim::emulation::Work work_;
};

// The decoder on it, with tokens: its memory has none.
class FixedTokens final : public ForwardingRunner {
 public:
  explicit FixedTokens(std::unique_ptr<ModelRunner> runner)
      : ForwardingRunner(std::move(runner)),
        tokens_(static_cast<size_t>(options().max_logit_rows), kToken) {}

  absl::Status Finish(StepOutput* output) override {
    const absl::Status status = ForwardingRunner::Finish(output);
    output->tokens = std::span(tokens_).first(output->tokens.size());
    return status;
  }

 private:
  const std::vector<int32_t> tokens_;
};

}  // namespace

RunnerFactory RunnerUnderTest() {
  return [](const Checkpoint& checkpoint, ModelSpec spec, ModelOptions options,
            kernels::ParallelFor parallel) -> absl::StatusOr<std::unique_ptr<ModelRunner>> {
    auto runner = GpuDecoder::Create(std::make_unique<IdleDevice>(), checkpoint, std::move(spec),
                                     std::move(options), parallel);
    if (!runner.ok()) return runner.status();
    return std::make_unique<FixedTokens>(*std::move(runner));
  };
}

}  // namespace acuity::engine
