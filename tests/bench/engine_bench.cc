// How quickly the default model (or another GGUF) loads, reads prompts and generates, and where the
// time goes.
//   engine_bench [--model PATH] [--threads N] [--f32] [--quick] [--only decode|batch|prefill]
// Each figure is the median of three runs in this process.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/model/model_runner.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/engine/model/batch_maker.h"

namespace acuity::engine {
namespace {

constexpr int kBlockSize = 16;
constexpr int kChunk = 512;
constexpr int kMaxContext = 8192;
constexpr int kStride = kMaxContext / kBlockSize;
constexpr int kRuns = 3;

struct Arguments {
  std::string model;
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  kernels::DType dtype = kernels::DType::kBFloat16;
  bool quick = false;  // short contexts only
  std::string only;    // one part, for a profiler
};

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "engine_bench: %s\n", message.c_str());
  std::exit(1);
}

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  const char* deps = std::getenv("ACUITY_DEPS");
  const char* home = std::getenv("HOME");
  arguments.model =
      (deps != nullptr ? std::string(deps)
                       : std::string(home != nullptr ? home : "") + "/.cache/acuity") +
      "/models/smollm2-135m-instruct-q4_1.gguf";
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--f32") {
      arguments.dtype = kernels::DType::kFloat32;
    } else if (flag == "--quick") {
      arguments.quick = true;
    } else if (flag == "--model" && i + 1 < argc) {
      arguments.model = argv[++i];
    } else if (flag == "--only" && i + 1 < argc) {
      arguments.only = argv[++i];
    } else if (flag == "--threads" && i + 1 < argc) {
      arguments.threads = std::max(1, std::atoi(argv[++i]));
    } else {
      Fail("unknown argument " + flag);
    }
  }
  return arguments;
}

// Processor time tells what the machine could do when other work takes its cores; it counts waiting
// threads' spins.
struct Times {
  double wall_s = 0, cpu_s = 0;
};

Times Measure(const std::function<void()>& work) {
  timespec begin, end;
  const auto start = std::chrono::steady_clock::now();
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  work();
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  const double cpu_s = static_cast<double>(end.tv_sec - begin.tv_sec) +
                       1e-9 * static_cast<double>(end.tv_nsec - begin.tv_nsec);
  return {wall.count(), cpu_s};
}

Times Median(const std::function<void()>& work) {
  std::vector<double> wall, cpu;
  for (int i = 0; i < kRuns; ++i) {
    const Times times = Measure(work);
    wall.push_back(times.wall_s);
    cpu.push_back(times.cpu_s);
  }
  std::sort(wall.begin(), wall.end());
  std::sort(cpu.begin(), cpu.end());
  return {wall[kRuns / 2], cpu[kRuns / 2]};
}

// `tokens` without and with statistics.
void PrintRates(double tokens, const Times& plain, const Times& stats) {
  std::printf("%7.1f tok/s (%6.1f a CPU second), with statistics %7.1f (%6.1f), ratio %.3f\n",
              tokens / plain.wall_s, tokens / plain.cpu_s, tokens / stats.wall_s,
              tokens / stats.cpu_s, plain.cpu_s / stats.cpu_s);
  std::fflush(stdout);
}

double ResidentMegabytes() {
  std::ifstream statm("/proc/self/statm");
  double pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

class Bench {
 public:
  explicit Bench(ModelRunner* runner) : runner_(runner) {
    for (int i = 0; i < kMaxContext; ++i) {
      tokens_.push_back(static_cast<int32_t>((int64_t{i} * 7919 + 11) % runner->spec().vocab_size));
    }
  }

  // Reads a prompt into pages first_block, ... in chunks; logits of its last row only.
  void Prefill(int length, int first_block, bool stats) {
    const std::vector<int32_t> blocks = Blocks(first_block);
    for (int begin = 0; begin < length; begin += kChunk) {
      const int count = std::min(kChunk, length - begin);
      ClearBatch(kStride, &batch_);
      AddSequence(std::span(tokens_).subspan(begin, count), begin, blocks, kBlockSize,
                  begin + count == length ? LogitRows::kLast : LogitRows::kNone, &batch_);
      Step(stats);
    }
  }

  // `steps` tokens for each of `sequences` whose contexts are `length` long.
  void Decode(int sequences, int length, int steps, bool stats) {
    for (int step = 0; step < steps; ++step) {
      ClearBatch(kStride, &batch_);
      for (int s = 0; s < sequences; ++s) {
        AddSequence(std::span(tokens_).subspan(step, 1), length + step, Blocks(FirstBlock(s)),
                    kBlockSize, LogitRows::kLast, &batch_);
      }
      Step(stats);
    }
  }

  static int FirstBlock(int sequence) { return sequence * 32; }

 private:
  std::vector<int32_t> Blocks(int first) const {
    std::vector<int32_t> blocks(kStride);
    std::iota(blocks.begin(), blocks.end(), first);
    for (int32_t& block : blocks) block = std::min(block, runner_->num_blocks() - 1);
    return blocks;
  }

  void Step(bool stats) {
    if (stats) MeasureSequences(runner_->spec(), /*by_head=*/false, &batch_);
    StepOutput output;
    const absl::Status status = runner_->Step(batch_, &output);
    if (!status.ok()) Fail(status.ToString());
  }

  ModelRunner* const runner_;
  std::vector<int32_t> tokens_;
  Batch batch_;
};

void BenchPrefill(Bench& bench, bool quick) {
  for (const int length : {512, 2048, 8192}) {
    if (quick && length > 2048) continue;
    Times times[2];
    for (const bool stats : {false, true}) {
      times[stats] = Median([&] { bench.Prefill(length, 0, stats); });
    }
    std::printf("prefill %4d tokens: ", length);
    PrintRates(length, times[0], times[1]);
  }
}

void BenchDecode(Bench& bench, int sequences, int context, bool quick) {
  const int steps = quick ? 16 : 128;
  for (int s = 0; s < sequences; ++s) bench.Prefill(context, Bench::FirstBlock(s), false);
  Times times[2];
  for (const bool stats : {false, true}) {
    times[stats] = Median([&] { bench.Decode(sequences, context, steps, stats); });
  }
  std::printf("decode %2d x, context %d + %d: ", sequences, context, steps);
  PrintRates(sequences * steps, times[0], times[1]);
}

int Main(const Arguments& arguments) {
  kernels::ThreadPool pool(arguments.threads);
  const double before = ResidentMegabytes();
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<ModelRunner> runner;
  const Times open = Measure([&] {
    auto opened = Checkpoint::Open(arguments.model);
    if (!opened.ok()) Fail(opened.status().ToString());
    checkpoint = *std::move(opened);
  });
  const Times load = Measure([&] {
    ModelOptions options;
    options.weight_dtype = options.kv_dtype = arguments.dtype;
    options.block_size = kBlockSize;
    options.kv_memory_bytes = int64_t{1} << 30;
    options.max_batch_tokens = kChunk;
    auto created =
        ModelRunner::Create(*checkpoint, checkpoint->spec(), options, pool.parallel_for());
    if (!created.ok()) Fail(created.status().ToString());
    runner = *std::move(created);
  });
  std::printf("%s, %d threads, %s, %s\n", runner->spec().display_name.c_str(), pool.num_threads(),
              kernels::IsaName(kernels::ActiveIsa()),
              arguments.dtype == kernels::DType::kBFloat16 ? "bfloat16" : "float32");
  std::printf(
      "load: open %.3f s, weights %.3f s (CPU %.3f s); resident %.0f MB (%.0f before), weights "
      "%.0f MB\n",
      open.wall_s, load.wall_s, load.cpu_s, ResidentMegabytes(), before,
      static_cast<double>(runner->weight_bytes()) / 1e6);
  std::fflush(stdout);
  Bench bench(runner.get());
  bench.Prefill(kChunk, 0, false);  // warms up
  const auto wanted = [&](const char* part) {
    return arguments.only.empty() || arguments.only == part;
  };
  if (wanted("decode")) BenchDecode(bench, 1, 64, arguments.quick);
  if (wanted("batch")) BenchDecode(bench, 16, 64, arguments.quick);
  if (wanted("prefill")) BenchPrefill(bench, arguments.quick);
  std::printf("resident %.0f MB after all\n", ResidentMegabytes());
  return 0;
}

}  // namespace
}  // namespace acuity::engine

int main(int argc, char** argv) { return acuity::engine::Main(acuity::engine::Parse(argc, argv)); }
