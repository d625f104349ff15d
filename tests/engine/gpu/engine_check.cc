// A real model on the CPU and on a GPU, side by side: prints how far apart they are, fails if it is
// further than bfloat16 explains, or if the GPU draws another token than the CPU's sampler from the
// GPU's logits.
//
//   engine_gpu_check [--model PATH] [--tokens N] [--steps N]
//
// A prompt of N tokens in two chunks, then N steps of greedy decoding (the CPU's tokens for both)
// beside a second sequence, so that buckets are captured and replayed. Exit status 2: no GPU here.
// Linked with the CUDA engine (scripts/gpu-check), or with the emulated GPU, which needs minutes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/opened_model.h"
#include "engine/sample/sampler.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/engine/gpu/runner_under_test.h"
#include "tests/engine/model/batch_maker.h"

namespace acuity::engine {
namespace {

constexpr int kBlockSize = 16;
// Logits: rounding of activations and deltas to 8 bits some hundred times on the way. Entropy, in
// nats, as a mean over rows and heads. Estimates: no GPU has been held to them yet.
constexpr double kMostLogits = 0.08, kMostEntropy = 0.02;

const char* const kText =
    "Softmax attention fades as the context grows: the largest probability of n keys goes to zero, "
    "and the model loses what it was told. Nobody at the harbour remembered who had painted the "
    "lighthouse green, but every child knew the number of its steps, two hundred and eleven. ";

[[noreturn]] void Fail(const std::string& message, int status = 1) {
  std::fprintf(stderr, "engine_gpu_check: %s\n", message.c_str());
  std::exit(status);
}

struct Output {
  std::vector<float> logits;
  std::vector<int32_t> tokens;
  std::vector<kernels::RowSums> sums;  // [rows measured, num_layers, num_heads]
};

Output Step(ModelRunner& runner, const Batch& batch) {
  StepOutput output;
  const absl::Status status = runner.Step(batch, &output);
  if (!status.ok()) Fail(runner.device() + ": " + status.ToString());
  return {{output.logits.begin(), output.logits.end()},
          {output.tokens.begin(), output.tokens.end()},
          {output.sums.begin(), output.sums.end()}};
}

// The step once more, drawn: how many of its tokens are those that the sampler draws from `logits`,
// which it gave before.
int SameDraws(ModelRunner& runner, Batch batch, const std::vector<float>& logits, int step) {
  const SamplingParams kinds[] = {{.temperature = 0},
                                  {.temperature = 0.8f, .top_p = 0.95f},
                                  {.temperature = 1.2f, .top_k = 50, .min_p = 0.02f},
                                  {.temperature = 1}};
  const SamplingParams& params = kinds[static_cast<size_t>(step) % std::size(kinds)];
  for (const int32_t row : std::exchange(batch.logit_rows, {})) {
    batch.draws.push_back({row,
                           {.temperature = params.temperature,
                            .top_k = params.top_k,
                            .top_p = params.top_p,
                            .min_p = params.min_p,
                            .seed = static_cast<uint64_t>(row),
                            .position = batch.positions[static_cast<size_t>(row)] + 1}});
  }
  const std::vector<int32_t> tokens = Step(runner, batch).tokens;
  const size_t vocab = logits.size() / tokens.size();
  Sampler sampler(static_cast<int>(vocab));
  int same = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const kernels::SampleRow& row = batch.draws[i].sample;
    const auto sampled = sampler.Sample(std::span(logits).subspan(i * vocab, vocab), params,
                                        {.seed = row.seed, .position = row.position});
    same += sampled.ok() && sampled->token == tokens[i];
  }
  return same;
}

struct Differences {
  double squares = 0, size = 0, entropy = 0;
  int64_t entropies = 0, rows = 0, same_choice = 0;

  void Add(const Output& gpu, const Output& cpu, size_t vocab) {
    for (size_t i = 0; i < cpu.logits.size(); ++i) {
      const double difference = double{gpu.logits[i]} - cpu.logits[i];
      squares += difference * difference;
      size += double{cpu.logits[i]} * cpu.logits[i];
    }
    for (size_t i = 0; i < cpu.sums.size(); ++i, ++entropies) {
      entropy += static_cast<double>(std::abs(gpu.sums[i].entropy - cpu.sums[i].entropy)) *
                 kernels::kRowSumUnit;
    }
    for (size_t row = 0; row < cpu.logits.size(); row += vocab, ++rows) {
      const auto best = [&](const std::vector<float>& logits) {
        const auto begin = logits.begin() + static_cast<int64_t>(row);
        return std::max_element(begin, begin + static_cast<int64_t>(vocab)) - begin;
      };
      same_choice += best(gpu.logits) == best(cpu.logits);
    }
  }
  double logits() const { return std::sqrt(squares / size); }
  double mean_entropy() const { return entropy / static_cast<double>(entropies); }
};

struct Arguments {
  std::string model;
  int tokens = 1200, steps = 32;
};

Arguments Parse(int argc, char** argv) {
  const char* deps = std::getenv("ACUITY_DEPS");
  const char* home = std::getenv("HOME");
  const std::string cache = std::string(home != nullptr ? home : "") + "/.cache/acuity";
  Arguments arguments;
  arguments.model = (deps != nullptr ? deps : cache) + "/models/smollm2-135m-instruct-q4_1.gguf";
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) Fail(flag + " needs a value", 2);
    if (flag == "--model") {
      arguments.model = argv[i + 1];
    } else if (flag == "--tokens") {
      arguments.tokens = std::max(32, std::atoi(argv[i + 1]));
    } else if (flag == "--steps") {
      arguments.steps = std::max(1, std::atoi(argv[i + 1]));
    } else {
      Fail("unknown argument " + flag, 2);
    }
  }
  return arguments;
}

std::unique_ptr<ModelRunner> Make(const RunnerFactory& make, const OpenedModel& model,
                                  const Arguments& arguments, kernels::ThreadPool* pool) {
  ModelOptions options;
  options.block_size = kBlockSize;
  options.kv_memory_bytes = int64_t{512} << 20;
  options.max_batch_tokens = arguments.tokens;
  auto runner = make(*model.checkpoint, model.spec, options, pool->parallel_for());
  if (!runner.ok()) {
    Fail(runner.status().ToString(), absl::IsFailedPrecondition(runner.status()) ? 2 : 1);
  }
  return *std::move(runner);
}

std::vector<int32_t> Prompt(const Tokenizer& tokenizer, int size) {
  std::vector<int32_t> tokens;
  while (static_cast<int>(tokens.size()) < size) {
    const auto more = tokenizer.Encode(kText, {.add_special = tokens.empty()});
    if (!more.ok()) Fail(more.status().ToString());
    tokens.insert(tokens.end(), more->begin(), more->end());
  }
  tokens.resize(static_cast<size_t>(size));
  return tokens;
}

// Two sequences, with the pages [0, stride) and [stride, 2 stride).
int Check(const Arguments& arguments) {
  auto model = OpenModel(arguments.model, "");
  if (!model.ok()) Fail(model.status().ToString());
  kernels::ThreadPool pool(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  const auto gpu = Make(RunnerUnderTest(), *model, arguments, &pool);
  const auto cpu = Make(ModelRunner::Create, *model, arguments, &pool);
  const std::vector<int32_t> tokens = Prompt(*model->tokenizer, arguments.tokens);
  const int stride = (arguments.tokens + arguments.steps) / kBlockSize + 1;
  std::vector<int32_t> blocks[2];
  for (int i = 0; i < 2; ++i) {
    blocks[i].resize(static_cast<size_t>(stride));
    std::iota(blocks[i].begin(), blocks[i].end(), i * stride);
  }
  const auto vocab = static_cast<size_t>(model->spec.vocab_size);
  Differences prefill, decode;
  Batch batch;
  const int half = arguments.tokens / 2;
  for (const int begin : {0, half}) {
    const auto count = static_cast<size_t>(begin == 0 ? half : arguments.tokens - half);
    ClearBatch(stride, &batch);
    AddSequence(std::span(tokens).subspan(static_cast<size_t>(begin), count), begin, blocks[0],
                kBlockSize, LogitRows::kLast, &batch);
    MeasureEachRow(model->spec, &batch);
    prefill.Add(Step(*gpu, batch), Step(*cpu, batch), vocab);
  }
  // The second sequence is the prompt's first half, in one chunk.
  ClearBatch(stride, &batch);
  AddSequence(std::span(tokens).first(static_cast<size_t>(half)), 0, blocks[1], kBlockSize,
              LogitRows::kLast, &batch);
  Output last = Step(*cpu, batch);
  prefill.Add(Step(*gpu, batch), last, vocab);
  int same_draws = 0;
  std::vector<int32_t> next = {tokens.back(), tokens[static_cast<size_t>(half)]};
  for (int step = 0; step < arguments.steps; ++step) {
    ClearBatch(stride, &batch);
    for (int i = 0; i < 2; ++i) {
      AddSequence(std::span(next).subspan(static_cast<size_t>(i), 1),
                  (i == 0 ? arguments.tokens : half) + step, blocks[i], kBlockSize,
                  LogitRows::kLast, &batch);
    }
    if (step % 4 == 0) MeasureEachRow(model->spec, &batch);
    last = Step(*cpu, batch);
    const Output on_gpu = Step(*gpu, batch);
    decode.Add(on_gpu, last, vocab);
    same_draws += SameDraws(*gpu, batch, on_gpu.logits, step);
    for (size_t i = 0; i < 2; ++i) {
      const auto begin = last.logits.begin() + static_cast<int64_t>(i * vocab);
      next[i] = static_cast<int32_t>(std::max_element(begin, begin + static_cast<int64_t>(vocab)) -
                                     begin);
    }
  }
  std::printf("%d of %d tokens drawn there are the sampler's\n", same_draws, 2 * arguments.steps);
  bool close = same_draws == 2 * arguments.steps;
  for (const auto& [name, d] : {std::pair("prefill", &prefill), {"decode", &decode}}) {
    std::printf(
        "%s on %s: logits differ by %.4f (relative RMS), entropy by %.5f nats on average, "
        "%lld of %lld rows choose the same token\n",
        name, gpu->device().c_str(), d->logits(), d->mean_entropy(),
        static_cast<long long>(d->same_choice), static_cast<long long>(d->rows));
    close = close && d->logits() <= kMostLogits && d->mean_entropy() <= kMostEntropy;
  }
  std::printf("allowed: logits %.2f, entropy %.2f nats\n", kMostLogits, kMostEntropy);
  return close ? 0 : 1;
}

}  // namespace
}  // namespace acuity::engine

int main(int argc, char** argv) { return acuity::engine::Check(acuity::engine::Parse(argc, argv)); }
