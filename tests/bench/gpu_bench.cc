// The CUDA kernels on this machine's GPU: prints one JSON object. `scripts/gpu-bench` runs it, adds
// what PyTorch does beside it, and writes table, JSON and plot. Every figure is the median of
// kRepeats launches, timed by events, after kWarmUps; pairs (statistics off and on) alternate.
// Inputs are random, no two launches in a row read the same KV unless it is far larger than the L2
// cache.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/layer_ops.h"
#include "kernels/cuda/sample.h"

namespace acuity::kernels::cuda {
namespace {

using Json = nlohmann::json;

constexpr int kRepeats = 30, kWarmUps = 3;
constexpr int kBlockSize = 16;
constexpr int64_t kFarBeyondL2 = int64_t{512} << 20;  // bytes; the largest L2 so far has 126 MB

[[noreturn]] void Fail(const std::string& what, int status = 1) {
  std::fprintf(stderr, "gpu_bench: %s\n", what.c_str());
  std::exit(status);
}
void Check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) Fail(std::string(what) + ": " + cudaGetErrorString(status));
}
void Check(const char* error, const char* what) {
  if (error != nullptr) Fail(std::string(what) + ": " + error);
}

// Device memory, filled with random small bfloat16 numbers, whose bytes are 8-bit floats and no
// NaN, or with `values`.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : memory_(nullptr, cudaFree) {
    void* memory = nullptr;
    Check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "cudaMalloc");
    memory_.reset(memory);
    std::vector<uint16_t> chunk(1 << 20);
    std::mt19937 rng(1);
    for (uint16_t& x : chunk) x = static_cast<uint16_t>((rng() & 0x80bfu) | 0x3e00u);  // 1/8 .. 1/2
    const int64_t size = static_cast<int64_t>(chunk.size() * sizeof(uint16_t));
    for (int64_t at = 0; at < bytes; at += size) {
      const auto part = static_cast<size_t>(std::min(size, bytes - at));
      Check(cudaMemcpy(As<char>() + at, chunk.data(), part, cudaMemcpyDefault), "cudaMemcpy");
    }
  }
  template <typename T>
  explicit Buffer(const std::vector<T>& values)
      : Buffer(static_cast<int64_t>(std::max<size_t>(values.size(), 1) * sizeof(T))) {
    Check(cudaMemcpy(memory_.get(), values.data(), values.size() * sizeof(T), cudaMemcpyDefault),
          "cudaMemcpy");
  }
  template <typename T>
  T* As() const {
    return static_cast<T*>(memory_.get());
  }

 private:
  std::unique_ptr<void, cudaError_t (*)(void*)> memory_;
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Median seconds of each of `launches`, which take turns; they are told how often they ran.
std::vector<double> Seconds(const std::vector<std::function<const char*(int)>>& launches) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "cudaEventCreate");
  Check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<std::vector<double>> seconds(launches.size());
  for (int run = 0; run < kWarmUps + kRepeats; ++run) {
    for (size_t i = 0; i < launches.size(); ++i) {
      Check(cudaEventRecord(begin), "cudaEventRecord");
      Check(launches[i](run), "launch");
      Check(cudaEventRecord(end), "cudaEventRecord");
      Check(cudaEventSynchronize(end), "kernel");
      float milliseconds = 0;
      Check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
      if (run >= kWarmUps) seconds[i].push_back(milliseconds * 1e-3);
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::vector<double> medians;
  for (const std::vector<double>& s : seconds) medians.push_back(Median(s));
  return medians;
}

const char* Named(cudaError_t status) {
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

// Bytes read and written per second by the driver's own device-to-device copy.
double CopyBytesPerSecond() {
  constexpr int64_t kBytes = int64_t{1} << 30;
  const Buffer from(kBytes), to(kBytes);
  return 2.0 * kBytes / Seconds({[&](int) {
           return Named(cudaMemcpyAsync(to.As<char>(), from.As<char>(), kBytes,
                                        cudaMemcpyDeviceToDevice, nullptr));
         }})[0];
}

struct AttentionCase {
  int num_seqs, new_rows, kv_len, heads, kv_heads, head_dim;
};

// One layer's attention over a batch of equal sequences.
class AttentionRun {
 public:
  explicit AttentionRun(const AttentionCase& c, PrefillWith prefill_with = PrefillWith::kWarps,
                        DType type = DType::kBFloat16)
      : kv_bytes_(int64_t{2} * c.num_seqs * c.kv_len * c.kv_heads * c.head_dim *
                  static_cast<int64_t>(SizeOf(type))),
        copies_(static_cast<int>((kFarBeyondL2 + kv_bytes_ - 1) / kv_bytes_)),
        rows_(int64_t{c.num_seqs} * c.new_rows),
        k_(copies_ * kv_bytes_ / 2),
        v_(copies_ * kv_bytes_ / 2),
        q_(std::vector<float>(static_cast<size_t>(rows_ * c.heads * c.head_dim), 0.25f)),
        out_(rows_ * c.heads * c.head_dim * 4),
        stats_(rows_ * c.heads * static_cast<int64_t>(sizeof(RowStats))) {
    params_.shape = {c.heads, c.kv_heads, c.head_dim, kBlockSize, type};
    prefill_with_ = prefill_with;
    const int pages = (c.kv_len + kBlockSize - 1) / kBlockSize;
    std::vector<int32_t> indptr, kv_len(static_cast<size_t>(c.num_seqs), c.kv_len);
    for (int i = 0; i <= c.num_seqs; ++i) indptr.push_back(i * c.new_rows);
    for (int copy = 0; copy < copies_; ++copy) {
      std::vector<int32_t> tables;
      for (int i = 0; i < c.num_seqs * pages; ++i) tables.push_back(copy * c.num_seqs * pages + i);
      std::shuffle(tables.begin(), tables.end(), std::mt19937(static_cast<uint32_t>(copy)));
      tables_.emplace_back(tables);
      if (copy == 0) MakePlan({c.num_seqs, indptr.data(), kv_len.data(), tables.data(), pages});
    }
    indptr_ = std::make_unique<Buffer>(indptr);
    kv_len_ = std::make_unique<Buffer>(kv_len);
    params_.batch = {c.num_seqs, indptr_->As<int32_t>(), kv_len_->As<int32_t>(), nullptr, pages};
    params_.q = q_.As<float>();
    params_.q_stride = params_.out_stride = int64_t{c.heads} * c.head_dim;
    params_.k_pages = k_.As<void>();
    params_.v_pages = v_.As<void>();
    params_.out = out_.As<float>();
    params_.softmax_scale = 0.1f;
  }

  int64_t kv_bytes() const { return kv_bytes_; }
  // Without and with statistics.
  std::vector<double> Measure() {
    const auto run = [this](int i, RowStats* stats) {
      params_.batch.block_tables = tables_[static_cast<size_t>(i % copies_)].As<int32_t>();
      params_.stats = stats;
      return RunAttention(params_, capacity_, plan_->As<void>(), workspace_->As<float>(), nullptr);
    };
    return Seconds({[&](int i) { return run(i, nullptr); },
                    [&](int i) { return run(i + 1, stats_.As<RowStats>()); }});
  }

 private:
  void MakePlan(const RaggedBatch& batch) {
    AttentionPlan plan;
    PlanAttention(params_.shape, batch, 0, &plan, prefill_with_);
    capacity_ = CapacityOf(plan);
    std::vector<char> bytes(static_cast<size_t>(PlanBytes(capacity_)));
    if (!WritePlan(plan, capacity_, bytes.data())) Fail("a plan that does not fit its capacity");
    plan_ = std::make_unique<Buffer>(bytes);
    workspace_ = std::make_unique<Buffer>(plan.workspace_floats * 4 + 16);
  }

  AttentionParams params_;
  PrefillWith prefill_with_;
  int64_t kv_bytes_;
  int copies_;
  int64_t rows_;
  Buffer k_, v_, q_, out_, stats_;
  std::vector<Buffer> tables_;
  std::unique_ptr<Buffer> indptr_, kv_len_, plan_, workspace_;
  PlanCapacity capacity_;
};

Json Describe(const AttentionCase& c) {
  return {{"num_seqs", c.num_seqs}, {"new_rows", c.new_rows}, {"kv_len", c.kv_len},
          {"heads", c.heads},       {"kv_heads", c.kv_heads}, {"head_dim", c.head_dim}};
}

Json Decode(double copy) {
  Json rows = Json::array();
  for (const AttentionCase& c : std::vector<AttentionCase>{{4, 1, 4096, 32, 8, 128},
                                                           {32, 1, 4096, 32, 8, 128},
                                                           {64, 1, 2048, 32, 8, 64},
                                                           {1, 1, 131072, 32, 8, 128},
                                                           {16, 1, 4096, 32, 32, 128}}) {
    for (DType type : {DType::kBFloat16, DType::kFloat8}) {
      AttentionRun run(c, PrefillWith::kWarps, type);
      const std::vector<double> seconds = run.Measure();
      const auto bytes = static_cast<double>(run.kv_bytes());
      Json row = Describe(c);
      row["kv_bits"] = 8 * SizeOf(type);
      row["kv_mb"] = bytes / 1e6;
      row["gb_s"] = bytes / seconds[0] / 1e9;
      row["stats_gb_s"] = bytes / seconds[1] / 1e9;
      row["stats_of_copy"] = bytes / seconds[1] / copy;
      row["stats_cost"] = seconds[1] / seconds[0] - 1;
      rows.push_back(row);
    }
  }
  return rows;
}

// `warpgroups`: also by the kernel on warpgroups.
Json Prefill(bool warpgroups) {
  Json rows = Json::array();
  for (int head_dim : {128, 64}) {
    for (int n : {4096, 8192, 16384}) {
      const AttentionCase c = {1, n, n, 32, 8, head_dim};
      const std::vector<double> seconds = AttentionRun(c).Measure();
      const std::vector<double> small =
          AttentionRun(c, PrefillWith::kWarps, DType::kFloat8).Measure();
      // Two products, a multiplication and an addition each, over the causal half.
      const double flop = 4.0 * head_dim * c.heads * (0.5 * n * (n + 1.0));
      Json row = Describe(c);
      row["tflop_s"] = flop / seconds[0] / 1e12;
      row["stats_tflop_s"] = flop / seconds[1] / 1e12;
      row["stats_cost"] = seconds[1] / seconds[0] - 1;
      row["stats_8_bit_tflop_s"] = flop / small[1] / 1e12;
      if (warpgroups) {
        const std::vector<double> by = AttentionRun(c, PrefillWith::kWarpgroups).Measure();
        row["warpgroups_tflop_s"] = flop / by[0] / 1e12;
        row["warpgroups_stats_tflop_s"] = flop / by[1] / 1e12;
      }
      rows.push_back(row);
    }
  }
  return rows;
}

Json LayerOps(double copy) {
  constexpr int64_t kRows = 8192;
  constexpr int kDim = 4096, kVocab = 131072, kSampled = 64;
  const Buffer residual(kRows * kDim * 4), weight(std::vector<float>(kDim, 1.0f));
  const Buffer half(kRows * kDim * 4), out(kRows * kDim * 2);
  AddNormParams norm;
  norm.norm = {NormKind::kRms, 1e-5f, weight.As<float>()};
  norm.residual = residual.As<float>();
  norm.delta = half.As<void>();
  norm.delta_scale = 1e-3f;
  norm.out = out.As<void>();
  norm.rows = kRows;
  norm.dim = kDim;
  ActivateParams activate;
  activate.in = half.As<void>();
  activate.rows = kRows;
  activate.dim = kDim;
  activate.out = out.As<void>();
  std::vector<float> logits;
  std::mt19937 rng(2);
  std::normal_distribution<float> normal(0, 3);
  for (int i = 0; i < kVocab; ++i) logits.push_back(normal(rng));
  std::vector<float> rows;
  for (int i = 0; i < kSampled; ++i) rows.insert(rows.end(), logits.begin(), logits.end());
  const Buffer logits_d(rows), scratch(rows), tokens(int64_t{kSampled} * 4);
  const Buffer params(std::vector<SampleRow>(kSampled, {0.8f, 50, 0.95f, 0.02f, 1, 1}));
  const SampleParams sample = {
      logits_d.As<float>(),   scratch.As<float>(), kVocab, kVocab, kSampled,
      params.As<SampleRow>(), tokens.As<int32_t>()};
  const std::vector<double> seconds = Seconds({[&](int) { return AddNorm(norm, nullptr); },
                                               [&](int) { return Activate(activate, nullptr); },
                                               [&](int) { return Sample(sample, nullptr); }});
  // residual in (its second reading is served by the cache) and out, delta, out; gate, up, out.
  const double norm_bytes = 1.0 * kRows * kDim * (4 + 4 + 2 + 2);
  const double activate_bytes = 1.0 * kRows * kDim * (2 + 2 + 2);
  return {{"add_norm_of_copy", norm_bytes / seconds[0] / copy},
          {"activate_of_copy", activate_bytes / seconds[1] / copy},
          {"sample_us", seconds[2] * 1e6},
          {"sample_rows", kSampled},
          {"sample_vocab", kVocab}};
}

Json Run() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    Fail(std::string("no CUDA device: ") + cudaGetErrorString(status), 2);
  }
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  int driver = 0, runtime = 0;
  Check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  Check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  const double copy = CopyBytesPerSecond();
  return {{"device", device.name},
          {"compute_capability", std::to_string(device.major) + "." + std::to_string(device.minor)},
          {"cuda_driver", driver},
          {"cuda_runtime", runtime},
          {"copy_gb_s", copy / 1e9},
          {"decode", Decode(copy)},
          {"prefill", Prefill(device.major == 9 && device.minor == 0)},
          {"layer_ops", LayerOps(copy)}};
}

}  // namespace
}  // namespace acuity::kernels::cuda

int main() {
  std::printf("%s\n", acuity::kernels::cuda::Run().dump(2).c_str());
  return 0;
}
