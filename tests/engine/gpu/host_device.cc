#include "tests/engine/gpu/host_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

using kernels::prim::emulation::Work;

constexpr int kPoison = 0xff;  // NaN in every type, -1 in integers
constexpr size_t kAlignment = 256;

struct HostGraph : Device::Graph {
  Work work;
};

DeviceMemory Poisoned(int64_t bytes, DeviceMemory::Deleter free) {
  const size_t size = (static_cast<size_t>(bytes) / kAlignment + 2) * kAlignment;
  void* data = std::aligned_alloc(kAlignment, size);
  ACUITY_CHECK(data != nullptr);
  std::memset(data, kPoison, size);
  // Nobody writes behind the end.
  const auto check_and_free = [=, free = std::move(free)](void* memory) {
    const auto* byte = static_cast<const unsigned char*>(memory);
    for (size_t i = static_cast<size_t>(bytes); i < size; ++i) ACUITY_CHECK(byte[i] == kPoison);
    free(memory);
  };
  return DeviceMemory(data, bytes, check_and_free);
}

const char* Multiply(const DeviceGemm& gemm) {
  const auto widen = [](const void* from, int64_t size) {
    const auto* halves = static_cast<const uint16_t*>(from);
    std::vector<float> values(static_cast<size_t>(size));
    for (size_t i = 0; i < values.size(); ++i) values[i] = kernels::BFloat16ToFloat(halves[i]);
    return values;
  };
  const std::vector<float> x = widen(gemm.x, gemm.m * gemm.k);
  const std::vector<float> weight = widen(gemm.weight, gemm.n * gemm.k);
  const std::vector<float> bias = widen(gemm.bias, gemm.bias == nullptr ? 0 : gemm.n);
  for (int64_t i = 0; i < gemm.m; ++i) {
    for (int64_t j = 0; j < gemm.n; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < gemm.k; ++k) sum += x[i * gemm.k + k] * weight[j * gemm.k + k];
      if (gemm.bias != nullptr) sum += bias[j];
      if (gemm.float_out) {
        static_cast<float*>(gemm.y)[i * gemm.n + j] = sum;
      } else {
        static_cast<uint16_t*>(gemm.y)[i * gemm.n + j] = kernels::FloatToBFloat16(sum);
      }
    }
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<DeviceMemory> HostDevice::Allocate(std::string_view what, int64_t bytes) {
  ACUITY_CHECK(!capturing_);
  if (bytes > control_->memory_bytes - control_->allocated_bytes) {
    return absl::ResourceExhaustedError(Concat("cannot allocate ", bytes, " bytes for ", what));
  }
  ++control_->allocations;
  control_->allocated_bytes += bytes;
  return Poisoned(bytes, [control = control_, bytes](void* memory) {
    control->allocated_bytes -= bytes;
    std::free(memory);
  });
}

absl::StatusOr<DeviceMemory> HostDevice::AllocatePinned(std::string_view, int64_t bytes) {
  ACUITY_CHECK(!capturing_);
  ++control_->allocations;
  return Poisoned(bytes, std::free);
}

absl::Status HostDevice::CopyToDevice(void* to, const void* from, int64_t bytes) {
  ACUITY_CHECK(!capturing_);
  work_.push_back([=]() -> const char* {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return nullptr;
  });
  return health_;
}

absl::Status HostDevice::CopyToHost(void* to, const void* from, int64_t bytes) {
  ++control_->copies_to_host;
  control_->bytes_to_host += bytes;
  return CopyToDevice(to, from, bytes);
}

absl::Status HostDevice::Zero(void* to, int64_t bytes) {
  work_.push_back([=]() -> const char* {
    std::memset(to, 0, static_cast<size_t>(bytes));
    return nullptr;
  });
  return health_;
}

absl::Status HostDevice::Gemm(const DeviceGemm& gemm) {
  ACUITY_CHECK(gemm.dtype == kernels::DType::kBFloat16 && !(gemm.float_out && gemm.bias));
  if (control_->refuse_products) return absl::InternalError("no product today");
  work_.push_back([=] { return Multiply(gemm); });
  return health_;
}

absl::Status HostDevice::Mark(int mark) {
  ACUITY_CHECK(!capturing_);
  control_->overlaps += *std::max_element(marks_.begin(), marks_.end()) > 0;
  marks_[static_cast<size_t>(mark)] = work_.size();
  return health_;
}

absl::Status HostDevice::RunFirst(size_t count) {
  ACUITY_CHECK(!capturing_);
  const auto end = work_.begin() + static_cast<ptrdiff_t>(count);
  const Work work(std::make_move_iterator(work_.begin()), std::make_move_iterator(end));
  work_.erase(work_.begin(), end);
  for (size_t& mark : marks_) mark -= std::min(mark, count);
  if (!health_.ok()) return health_;
  if (const std::string fault = std::exchange(control_->fault, ""); !fault.empty()) {
    if (control_->fault_is_fatal) {
      health_ = absl::UnavailableError(absl::StrCat("the GPU is lost: ", fault));
    }
    return absl::InternalError(fault);
  }
  for (const auto& task : work) {
    if (const char* error = task()) return absl::InternalError(error);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Device::Graph>> HostDevice::Capture(
    const std::function<absl::Status()>& enqueue) {
  if (control_->refuse_captures) return absl::InternalError("no capture today");
  ++control_->captures;
  Work before = std::exchange(work_, {});
  capturing_ = true;
  const absl::Status status = enqueue();
  capturing_ = false;
  auto graph = std::make_unique<HostGraph>();
  graph->work = std::exchange(work_, std::move(before));
  if (!status.ok()) return status;
  return graph;
}

absl::Status HostDevice::Replay(const Graph& graph) {
  ++control_->replays;
  const Work& work = static_cast<const HostGraph&>(graph).work;
  work_.insert(work_.end(), work.begin(), work.end());
  return health_;
}

}  // namespace acuity::engine
