// The engine's decode steps on a GPU, or their share of the host alone, on a device that does
// nothing (step_bench_host.cc): the whole façade, from plan to sink, with 1, 16 and 64 requests of
// the default model (or another GGUF), attention measured or not.
//   step_bench [--model PATH]   prints JSON; medians of runs, of steps in which every request
//   decodes
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/engine/gpu/runner_under_test.h"

namespace acuity::engine {
namespace {

constexpr int kPrompt = 512, kOutput = 256, kRuns = 5;

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "step_bench: %s\n", message.c_str());
  std::exit(1);
}

// How long steps took, on average. Read when the engine is idle.
class StepTimes final : public EngineObserver {
 public:
  void OnStep(const StepStats& stats) override {
    if (stats.num_tokens == sequences_) {
      decode_s_ += absl::ToDoubleSeconds(stats.duration);
      ++decode_steps_;
    } else if (stats.num_tokens > sequences_) {
      prompt_s_ += absl::ToDoubleSeconds(stats.duration);
      prompt_tokens_ += stats.num_tokens;
    }
  }
  void OnInterTokenLatency(absl::Duration) override {}
  void OnRequest(const RequestStats&) override {}
  void OnRejected(const char*) override {}

  void Reset(int sequences) {
    sequences_ = sequences;
    decode_s_ = decode_steps_ = prompt_s_ = prompt_tokens_ = 0;
  }
  // Where the first requests end before the last have come, no step has them all.
  bool HasDecodeSteps() const { return decode_steps_ > 0; }
  double DecodeMicroseconds() const { return decode_s_ / decode_steps_ * 1e6; }
  double PromptTokensPerSecond() const { return prompt_tokens_ / prompt_s_; }

 private:
  int sequences_ = 0;  // a step of so many tokens decodes all of them
  double decode_s_ = 0, decode_steps_ = 0, prompt_s_ = 0, prompt_tokens_ = 0;
};

class Sink final : public EventSink {
 public:
  bool OnToken(TokenEvent) override { return true; }
  void OnResult(RequestResult result) override {
    const std::lock_guard lock(mutex_);
    if (!result.status.ok()) Fail(result.status.ToString());
    done_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Generate(Engine& engine, int sequences, bool measured) {
  static int32_t salt = 0;  // so that no prompt is another's
  std::vector<std::shared_ptr<Sink>> sinks;
  for (int i = 0; i < sequences; ++i) {
    Request request;
    request.id = Engine::NextRequestId();
    ++salt;
    for (int t = 0; t < kPrompt; ++t) request.prompt.push_back(1000 + (t * salt) % 20011);
    request.sampling.max_tokens = kOutput;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.attention = measured ? AttentionDetail::kSummary : AttentionDetail::kOff;
    request.arrival = absl::Now();
    if (absl::Status status = engine.Prepare(&request); !status.ok()) Fail(status.ToString());
    sinks.push_back(std::make_shared<Sink>());
    const absl::Status submitted =
        engine.Submit(std::make_shared<const Request>(std::move(request)), sinks.back());
    if (!submitted.ok()) Fail(submitted.ToString());
  }
  for (const auto& sink : sinks) sink->Wait();
}

int Main(const std::string& model) {
  kernels::ThreadPool pool(2);
  StepTimes times;
  EngineOptions options;
  options.name = "bench";
  options.path = model;
  options.make_runner = RunnerUnderTest();
  options.kv_memory_bytes = int64_t{2} << 30;
  options.max_context = 2048;
  auto engine = Engine::Create(std::move(options), &pool, &times);
  if (!engine.ok()) Fail(engine.status().ToString());
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const int sequences : {1, 16, 64}) {
    for (const bool measured : {false, true}) {
      Generate(**engine, sequences, measured);  // captures the graphs
      std::vector<double> decode, prompt;
      for (int run = 0; decode.size() < kRuns; ++run) {
        if (run == 20 * kRuns) Fail("the requests never decode together");
        times.Reset(sequences);
        Generate(**engine, sequences, measured);
        if (!times.HasDecodeSteps()) continue;
        decode.push_back(times.DecodeMicroseconds());
        prompt.push_back(times.PromptTokensPerSecond());
      }
      const double step_us = Median(std::move(decode));
      results.push_back({{"sequences", sequences},
                         {"measured", measured},
                         {"decode_step_us", step_us},
                         {"decode_tokens_per_s", sequences * 1e6 / step_us},
                         {"prompt_tokens_per_s", Median(std::move(prompt))}});
    }
  }
  const nlohmann::ordered_json output = {{"device", (*engine)->info().device},
                                         {"model", (*engine)->info().display_name},
                                         {"steps", results}};
  std::printf("%s\n", output.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace acuity::engine

int main(int argc, char** argv) {
  const char* deps = std::getenv("ACUITY_DEPS");
  const char* home = std::getenv("HOME");
  std::string model =
      (deps != nullptr ? std::string(deps)
                       : std::string(home != nullptr ? home : "") + "/.cache/acuity") +
      "/models/smollm2-135m-instruct-q4_1.gguf";
  if (argc == 3 && std::string(argv[1]) == "--model") {
    model = argv[2];
  } else if (argc != 1) {
    acuity::engine::Fail("usage: step_bench [--model PATH]");
  }
  return acuity::engine::Main(model);
}
