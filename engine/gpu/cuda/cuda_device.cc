#include "engine/gpu/cuda/cuda_device.h"

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <utility>

#include "engine/loader/status_util.h"
#include "kernels/cuda/layer_ops.h"

namespace acuity::engine {
namespace {

constexpr int kDevice = 0;
constexpr int kLeastMajor = 8;  // compute capability: cp.async, bfloat16 on tensor cores

c10::Device TorchDevice() { return {c10::DeviceType::CUDA, kDevice}; }

absl::Status NoGpu(const std::string& driver) {
  return absl::FailedPreconditionError("no NVIDIA GPU (driver: " + driver + ")");
}

// LibTorch's registries know CUDA afterwards. Never unloaded.
absl::Status LoadTorchCuda() {
  static const absl::Status loaded = [] {
    const char* path = std::getenv("ACUITY_LIBTORCH_CUDA");
    if (path == nullptr) path = "libtorch_cuda.so";
    if (dlopen(path, RTLD_NOW | RTLD_GLOBAL) != nullptr) return absl::OkStatus();
    return absl::FailedPreconditionError(Concat(
        "cannot load LibTorch's CUDA half (ACUITY_LIBTORCH_CUDA names its file): ", dlerror()));
  }();
  return loaded;
}

// What LibTorch throws, without its stack trace.
absl::Status Thrown(const char* what) {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(Concat(what, ": ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::InternalError(Concat(what, ": ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(Concat(what, ": ", error.what()));
  }
}

struct CudaGraph final : Device::Graph {
  explicit CudaGraph(cudaGraphExec_t graph) : exec(graph) {}
  ~CudaGraph() override { cudaGraphExecDestroy(exec); }
  const cudaGraphExec_t exec;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(std::string name, c10::Stream torch_stream, void* stream)
      : name_(std::move(name)),
        torch_stream_(torch_stream),
        stream_(static_cast<cudaStream_t>(stream)) {}
  ~CudaDevice() override {
    for (const cudaEvent_t mark : marks_) {
      if (mark != nullptr) cudaEventDestroy(mark);
    }
  }

  std::string name() const override { return name_; }
  void* stream() const override { return stream_; }
  absl::Status health() const override { return health_; }
  absl::StatusOr<int64_t> FreeBytes() override;
  absl::StatusOr<DeviceMemory> Allocate(std::string_view what, int64_t bytes) override;
  absl::StatusOr<DeviceMemory> AllocatePinned(std::string_view what, int64_t bytes) override;
  absl::Status CopyToDevice(void* to, const void* from, int64_t bytes) override;
  absl::Status CopyToHost(void* to, const void* from, int64_t bytes) override;
  absl::Status Zero(void* to, int64_t bytes) override;
  absl::Status Gemm(const DeviceGemm& gemm) override;
  absl::Status Synchronise() override;
  absl::Status Mark(int mark) override;
  absl::Status Wait(int mark) override;
  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      const std::function<absl::Status()>& enqueue) override;
  absl::Status Replay(const Graph& graph) override;
  // A launch, to see whether the kernels were compiled for this GPU.
  absl::Status Probe();

 private:
  // OK, or what happened, having looked whether the device is lost.
  absl::Status Result(cudaError_t error, const char* what);

  const std::string name_;
  const c10::Stream torch_stream_;
  const cudaStream_t stream_;
  std::array<cudaEvent_t, kMarks> marks_ = {};  // null: never set
  absl::Status health_;
};

absl::Status CudaDevice::Result(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  // An error that stays after it was taken has ended the context: of this process, for good.
  static_cast<void>(cudaGetLastError());
  const cudaError_t now = cudaStreamQuery(stream_);
  if (health_.ok() && now != cudaSuccess && now != cudaErrorNotReady &&
      now != cudaErrorStreamCaptureUnsupported && now != cudaErrorStreamCaptureInvalidated) {
    health_ = absl::UnavailableError(
        Concat("the GPU is lost, restart the daemon: ", cudaGetErrorString(now)));
  }
  static_cast<void>(cudaGetLastError());
  return absl::InternalError(Concat("CUDA, ", what, ": ", cudaGetErrorString(error)));
}

absl::StatusOr<int64_t> CudaDevice::FreeBytes() {
  size_t free_bytes = 0, total_bytes = 0;
  ACUITY_RETURN_IF_ERROR(Result(cudaMemGetInfo(&free_bytes, &total_bytes), "free memory"));
  return static_cast<int64_t>(free_bytes);
}

absl::StatusOr<DeviceMemory> CudaDevice::Allocate(std::string_view what, int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    ACUITY_ASSIGN_OR_RETURN(const int64_t free_bytes, FreeBytes());
    return absl::ResourceExhaustedError(Concat("the GPU cannot allocate ", bytes, " bytes for ",
                                               what, "; ", free_bytes, " are free"));
  }
  ACUITY_RETURN_IF_ERROR(Result(error, "allocation"));
  return DeviceMemory(data, bytes, [](void* memory) { cudaFree(memory); });
}

absl::StatusOr<DeviceMemory> CudaDevice::AllocatePinned(std::string_view what, int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return absl::ResourceExhaustedError(
        Concat("cannot allocate ", bytes, " bytes of pinned memory for ", what));
  }
  ACUITY_RETURN_IF_ERROR(Result(error, "allocation of pinned memory"));
  return DeviceMemory(data, bytes, [](void* memory) { cudaFreeHost(memory); });
}

absl::Status CudaDevice::CopyToDevice(void* to, const void* from, int64_t bytes) {
  return Result(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
      "copy to the device");
}

absl::Status CudaDevice::CopyToHost(void* to, const void* from, int64_t bytes) {
  return Result(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
      "copy to the host");
}

absl::Status CudaDevice::Zero(void* to, int64_t bytes) {
  return Result(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_), "zeroing");
}

absl::Status CudaDevice::Gemm(const DeviceGemm& gemm) {
  const auto view = [](const void* data, c10::IntArrayRef sizes, c10::IntArrayRef strides,
                       at::ScalarType type) {
    return at::for_blob(const_cast<void*>(data), sizes)
        .strides(strides)
        .options(at::TensorOptions(type).device(TorchDevice()))
        .target_device(TorchDevice())
        .make_tensor();
  };
  try {
    const c10::InferenceMode inference;
    const c10::StreamGuard on(torch_stream_);
    const at::ScalarType half = gemm.dtype == kernels::DType::kBFloat16 ? at::kBFloat16 : at::kHalf;
    const at::Tensor x = view(gemm.x, {gemm.m, gemm.k}, {gemm.k, 1}, half);
    const at::Tensor transposed = view(gemm.weight, {gemm.k, gemm.n}, {1, gemm.k}, half);
    at::Tensor y = view(gemm.y, {gemm.m, gemm.n}, {gemm.n, 1}, gemm.float_out ? at::kFloat : half);
    if (gemm.float_out) {
      at::mm_out(y, x, transposed, at::kFloat);
    } else if (gemm.bias != nullptr) {
      at::addmm_out(y, view(gemm.bias, {gemm.n}, {1}, half), x, transposed);
    } else {
      at::mm_out(y, x, transposed);
    }
  } catch (const std::exception&) {
    return Thrown("matrix product");
  }
  return absl::OkStatus();
}

absl::Status CudaDevice::Synchronise() {
  return Result(cudaStreamSynchronize(stream_), "running the step");
}

absl::Status CudaDevice::Mark(int mark) {
  cudaEvent_t& event = marks_[static_cast<size_t>(mark)];
  if (event == nullptr) {
    ACUITY_RETURN_IF_ERROR(
        Result(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"));
  }
  return Result(cudaEventRecord(event, stream_), "marking the end of the step");
}

absl::Status CudaDevice::Wait(int mark) {
  return Result(cudaEventSynchronize(marks_[static_cast<size_t>(mark)]), "running the step");
}

absl::StatusOr<std::unique_ptr<Device::Graph>> CudaDevice::Capture(
    const std::function<absl::Status()>& enqueue) {
  // Relaxed: LibTorch may allocate while it captures.
  ACUITY_RETURN_IF_ERROR(
      Result(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "begin of capture"));
  const absl::Status enqueued = enqueue();
  cudaGraph_t graph = nullptr;
  const absl::Status captured = Result(cudaStreamEndCapture(stream_, &graph), "capture");
  if (!enqueued.ok() || !captured.ok()) {
    if (graph != nullptr) cudaGraphDestroy(graph);
    return enqueued.ok() ? captured : enqueued;
  }
  cudaGraphExec_t exec = nullptr;
  const absl::Status instantiated =
      Result(cudaGraphInstantiateWithFlags(&exec, graph, 0), "making a graph");
  cudaGraphDestroy(graph);
  if (!instantiated.ok()) return instantiated;
  return std::make_unique<CudaGraph>(exec);
}

absl::Status CudaDevice::Replay(const Graph& graph) {
  return Result(cudaGraphLaunch(static_cast<const CudaGraph&>(graph).exec, stream_), "replay");
}

absl::Status CudaDevice::Probe() {
  constexpr int kDim = 8;
  ACUITY_ASSIGN_OR_RETURN(const DeviceMemory row, Allocate("a probe", kDim * sizeof(float)));
  kernels::cuda::AddNormParams probe;
  probe.residual = row.As<float>();
  probe.rows = 1;
  probe.dim = kDim;
  const char* error = kernels::cuda::AddNorm(probe, stream_);
  if (error != nullptr) {
    return absl::FailedPreconditionError(Concat("the kernels do not run on ", name_, ": ", error));
  }
  return Synchronise();
}

std::string VersionText(int version) {  // 13000: "13.0"
  return Concat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::Status CheckCudaDevice() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return NoGpu("none installed");
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    return NoGpu(Concat("CUDA ", VersionText(driver), ": ",
                        error != cudaSuccess ? cudaGetErrorString(error) : "it has no device"));
  }
  cudaDeviceProp properties;
  if (const cudaError_t failed = cudaGetDeviceProperties(&properties, kDevice)) {
    return NoGpu(Concat("CUDA ", VersionText(driver), ": ", cudaGetErrorString(failed)));
  }
  if (properties.major < kLeastMajor) {
    return absl::FailedPreconditionError(Concat(properties.name, " has compute capability ",
                                                properties.major, ".", properties.minor,
                                                "; the kernels need ", kLeastMajor, ".0 or more"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice() {
  ACUITY_RETURN_IF_ERROR(CheckCudaDevice());
  ACUITY_RETURN_IF_ERROR(LoadTorchCuda());
  std::unique_ptr<CudaDevice> device;
  try {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    // Sums stay float32 until they are rounded, once.
    at::globalContext().setAllowBF16ReductionCuBLAS(false, false);
    const c10::impl::VirtualGuardImpl torch(c10::DeviceType::CUDA);
    const c10::Stream stream = torch.getNewStream(TorchDevice());
    cudaDeviceProp properties;
    if (const cudaError_t failed = cudaGetDeviceProperties(&properties, kDevice)) {
      return absl::InternalError(cudaGetErrorString(failed));
    }
    device =
        std::make_unique<CudaDevice>(properties.name, stream, torch.getStreamNativeHandle(stream));
  } catch (const std::exception&) {
    return Thrown("LibTorch's CUDA half");
  }
  ACUITY_RETURN_IF_ERROR(device->Probe());
  return device;
}

}  // namespace acuity::engine
