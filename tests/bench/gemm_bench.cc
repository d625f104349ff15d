// GFLOP/s and GB/s of Gemm on a decoder's shapes, beside what the machine can do: FMA peak and DRAM
// read of the same threads, measured in the same run. Medians, and the fastest sample (on a busy
// machine the figure that says something about the code); the percentages compare fastest with
// fastest.
//
//   gemm_bench [threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/gemm.h"

namespace acuity::kernels {
namespace {

using Clock = std::chrono::steady_clock;

struct Timing {
  double median_seconds = 0;
  double best_seconds = 0;
};

Timing Measure(double budget_seconds, const auto& body) {
  std::vector<double> samples;
  double total = 0;
  body();
  while (samples.size() < 5 || (total < budget_seconds && samples.size() < 2000)) {
    const Clock::time_point start = Clock::now();
    body();
    samples.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    total += samples.back();
  }
  std::nth_element(samples.begin(), samples.begin() + samples.size() / 2, samples.end());
  return {samples[samples.size() / 2], *std::min_element(samples.begin(), samples.end())};
}

constexpr int64_t kPeakSteps = 50000;

// Independent chains, enough to hide the latency of FMA.
constexpr int kChains = 12;
template <typename V>
[[gnu::always_inline]] inline double FmaChains(double seed) {
  V acc[kChains], a = V{} + static_cast<float>(seed), b = V{} + 0.999f;
  for (V& v : acc) v = a;
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (V& v : acc) v = v * b + a;  // contracted to FMA
    asm volatile("" : "+x"(b));
  }
  V sum{};
  for (const V& v : acc) sum += v;
  return static_cast<double>(sum[0]);
}

typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));

double ChainsPortable(double seed) { return FmaChains<Float4>(seed); }
__attribute__((target("avx2,fma"))) double ChainsAvx2(double seed) {
  return FmaChains<Float8>(seed);
}
__attribute__((target("avx512f,avx2,fma"))) double ChainsAvx512(double seed) {
  return FmaChains<Float16>(seed);
}

double FmaPeak(const ThreadPool& pool, const ParallelFor& parallel) {
  const Isa isa = ActiveIsa();
  const auto chains = isa == Isa::kAvx512 ? ChainsAvx512
                      : isa == Isa::kAvx2 ? ChainsAvx2
                                          : ChainsPortable;
  const int lanes = isa == Isa::kAvx512 ? 16 : isa == Isa::kAvx2 ? 8 : 4;
  std::vector<double> sink(static_cast<size_t>(pool.num_threads()));
  const Timing timing = Measure(0.3, [&] {
    parallel(pool.num_threads(),
             [&](int64_t i) { sink[static_cast<size_t>(i)] = chains(static_cast<double>(i)); });
  });
  return 2.0 * lanes * kChains * kPeakSteps * pool.num_threads() / timing.best_seconds;
}

// Four prefetched streams per task, as the GEMM's m = 1 tile has: one plain stream per core is
// slower.
double DramRead(const ParallelFor& parallel) {
  constexpr int64_t kBytes = int64_t{128} << 20, kTasks = 256, kStreams = 4;
  constexpr int64_t kStreamWords = kBytes / 8 / kTasks / kStreams, kAheadWords = 1024 / 8;
  const std::vector<uint64_t> data(kBytes / 8, 1);
  std::vector<uint64_t> sink(kTasks);
  const Timing timing = Measure(0.5, [&] {
    parallel(kTasks, [&](int64_t task) {
      const uint64_t* begin = data.data() + task * kStreams * kStreamWords;
      uint64_t sum = 0;
      for (int64_t i = 0; i < kStreamWords; i += 8) {  // one word of each cache line
        for (int64_t s = 0; s < kStreams; ++s) {
          const uint64_t* line = begin + s * kStreamWords + i;
          __builtin_prefetch(line + kAheadWords);
          sum += *line;
        }
      }
      sink[static_cast<size_t>(task)] = sum;
    });
  });
  return static_cast<double>(kBytes) / timing.best_seconds;
}

// Enough copies of a weight that none is found in a cache, as in a decoder, where each matrix is
// read once per step.
class Weights {
 public:
  Weights(DType dtype, int64_t n, int64_t k) : bytes_(PackedBytes(dtype, n, k)) {
    constexpr size_t kRotation = size_t{128} << 20;
    const size_t copies = std::max<size_t>(1, kRotation / bytes_);
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> rows(static_cast<size_t>(n * k));
    for (float& v : rows) v = normal(rng);
    for (size_t i = 0; i < copies; ++i) {
      void* data = ::operator new (bytes_, std::align_val_t{64});
      copies_.push_back({dtype, n, k, data});
      if (i == 0) {
        std::memset(data, 0, bytes_);
        PackRows(rows.data(), 0, n, copies_[0]);
      } else {
        std::memcpy(data, copies_[0].data, bytes_);
      }
    }
  }
  ~Weights() {
    for (const PackedWeight& w : copies_) ::operator delete (w.data, std::align_val_t{64});
  }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  const PackedWeight& Next() { return copies_[next_++ % copies_.size()]; }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  size_t next_ = 0;
  std::vector<PackedWeight> copies_;
};

void BenchShape(DType dtype, int64_t k, int64_t n, double peak, double dram,
                const ParallelFor& parallel) {
  Weights weights(dtype, n, k);
  for (int64_t m : {1, 4, 16, 64, 512}) {
    if (m * n > int64_t{512} * 3072) continue;  // a prefill computes logits for few rows
    std::vector<float> x(static_cast<size_t>(m * k), 0.5f), y(static_cast<size_t>(m * n));
    const Timing timing = Measure(0.3, [&] {
      Gemm({x.data(), k, m, weights.Next(), nullptr, false, y.data(), n}, parallel);
    });
    const double flop = 2.0 * static_cast<double>(m * n * k);
    const auto bytes = static_cast<double>(weights.bytes());
    std::printf("%-4s k=%-4ld n=%-5ld m=%-3ld %9.1f us (best %9.1f) %6.1f GFLOP/s %6.2f GB/s;",
                dtype == DType::kBFloat16 ? "bf16" : "f32", static_cast<long>(k),
                static_cast<long>(n), static_cast<long>(m), timing.median_seconds * 1e6,
                timing.best_seconds * 1e6, flop / timing.median_seconds / 1e9,
                bytes / timing.median_seconds / 1e9);
    std::printf(" best %6.1f GFLOP/s (%3.0f %%) %6.2f GB/s (%3.0f %%)\n",
                flop / timing.best_seconds / 1e9, 100 * flop / timing.best_seconds / peak,
                bytes / timing.best_seconds / 1e9, 100 * bytes / timing.best_seconds / dram);
  }
}

int Main(int argc, char** argv) {
  const int threads = argc > 1
                          ? std::atoi(argv[1])
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  ThreadPool pool(std::max(threads, 1));
  const ParallelFor parallel = pool.parallel_for();
  const double peak = FmaPeak(pool, parallel);
  const double dram = DramRead(parallel);
  std::printf(
      "%s, %d threads: FMA peak %.1f GFLOP/s, DRAM read %.1f GB/s (percentages are of these)\n",
      IsaName(ActiveIsa()), pool.num_threads(), peak / 1e9, dram / 1e9);
  for (DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (auto [k, n] : {std::pair<int64_t, int64_t>{576, 960},
                        {576, 576},
                        {576, 3072},
                        {1536, 576},
                        {576, 49152}}) {
      BenchShape(dtype, k, n, peak, dram, parallel);
    }
  }
  return 0;
}

}  // namespace
}  // namespace acuity::kernels

int main(int argc, char** argv) { return acuity::kernels::Main(argc, argv); }
