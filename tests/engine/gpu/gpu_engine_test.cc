// The whole façade over the GPU's decoder, on the emulated GPU: tokens, who draws them, statistics,
// a poisoned request, a lost device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/gpu/gpu_decoder.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/forwarding_runner.h"
#include "tests/engine/gpu/host_device.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::engine {
namespace {

using ::testing::HasSubstr;
using testing::kPoison;
using testing::kVocab;
using testing::Recorder;
using testing::TemporaryDirectory;

// One layer of two heads of 64 over a hidden size of 32.
testing::Bytes PoisonedLlama() {
  testing::GgufBuilder b = testing::ServableLlama();
  b.SetUint32("llama.context_length", 128);
  b.SetUint32("llama.attention.key_length", 64);
  b.SetUint32("llama.attention.value_length", 64);
  b.SetUint32("llama.rope.dimension_count", 64);
  b.tensor("blk.0.attn_q.weight").dims = {32, 128};
  b.tensor("blk.0.attn_k.weight").dims = {32, 64};
  b.tensor("blk.0.attn_v.weight").dims = {32, 64};
  b.tensor("blk.0.attn_output.weight").dims = {128, 32};
  return testing::PoisonedLlama(std::move(b));
}

// The same decoder, of which only logits are asked: the host draws from them.
class DrawsNothing final : public ForwardingRunner {
 public:
  using ForwardingRunner::ForwardingRunner;
  bool draws() const override { return false; }
};

enum class Machine { kCpu, kGpu, kGpuWithoutDraws };

class GpuEngineTest : public ::testing::Test {
 protected:
  GpuEngineTest() { directory_.Write("model.gguf", PoisonedLlama()); }

  std::unique_ptr<Engine> Start(Machine machine, int64_t kv_memory_bytes = 1 << 20) {
    EngineOptions options{.name = "tiny",
                          .path = directory_ / "model.gguf",
                          .kv_memory_bytes = kv_memory_bytes,
                          .max_batch_tokens = 128,  // every prompt is one chunk
                          .max_running = 8,
                          .report_min_tokens = 8};
    if (machine != Machine::kCpu) {
      options.make_runner = [=, control = control_](const Checkpoint& checkpoint, ModelSpec spec,
                                                    ModelOptions model_options,
                                                    kernels::ParallelFor parallel) {
        auto runner = GpuDecoder::Create(std::make_unique<HostDevice>(control), checkpoint,
                                         std::move(spec), std::move(model_options), parallel);
        if (runner.ok() && machine == Machine::kGpuWithoutDraws) {
          runner = std::make_unique<DrawsNothing>(*std::move(runner));
        }
        return runner;
      };
    }
    auto engine = Engine::Create(std::move(options), &pool_, nullptr);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  static std::vector<TokenId> Prompt(int size, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<TokenId> prompt;
    for (int i = 0; i < size; ++i) prompt.push_back(8 + static_cast<int>(random() % (kVocab - 8)));
    return prompt;
  }

  // Greedy, of six tokens, and the model does not choose the poison: as `change` leaves it.
  static std::shared_ptr<Recorder> Run(Engine& engine, std::vector<TokenId> prompt,
                                       const std::function<void(Request*)>& change = {}) {
    Request request;
    request.id = Engine::NextRequestId();
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = 6;
    request.sampling.ignore_eos = true;
    request.sampling.logit_bias = {{kPoison, -100.0f}};
    request.arrival = absl::Now();
    if (change) change(&request);
    EXPECT_EQ(engine.Prepare(&request), absl::OkStatus());
    auto sink = std::make_shared<Recorder>();
    EXPECT_EQ(engine.Submit(std::make_shared<const Request>(std::move(request)), sink),
              absl::OkStatus());
    return sink;
  }

  TemporaryDirectory directory_;
  kernels::ThreadPool pool_{2};
  const std::shared_ptr<HostDevice::Control> control_ = std::make_shared<HostDevice::Control>();
};

TEST_F(GpuEngineTest, RequestsTogetherAndAlone) {
  const std::unique_ptr<Engine> gpu = Start(Machine::kGpu), cpu = Start(Machine::kCpu);
  EXPECT_EQ(gpu->info().device, "emulated GPU");
  EXPECT_EQ(cpu->info().device, "cpu");
  EXPECT_EQ(gpu->info().dtype, "bfloat16");
  std::vector<std::vector<TokenId>> alone;
  for (uint32_t i = 0; i < 3; ++i) {
    const auto sink = Run(*gpu, Prompt(10 + 15 * static_cast<int>(i), i));
    const RequestResult result = sink->Wait();
    EXPECT_EQ(result.status, absl::OkStatus());
    alone.push_back(sink->tokens());
    EXPECT_EQ(alone.back().size(), 6u);
    // What it measured is what the CPU measures.
    const RequestResult expected = Run(*cpu, Prompt(10 + 15 * static_cast<int>(i), i))->Wait();
    ASSERT_FALSE(result.prompt_attention.empty());
    const AttentionBucket &actual = result.prompt_attention.layers[0].buckets.back(),
                          &wanted = expected.prompt_attention.layers[0].buckets.back();
    EXPECT_EQ(actual.rows, wanted.rows);
    EXPECT_NEAR(actual.normalized_entropy, wanted.normalized_entropy, 0.01);
  }
  EXPECT_GT(control_->replays, 0);
  // By another engine: what the first has cached, it would not compute in the same chunks.
  const std::unique_ptr<Engine> other = Start(Machine::kGpu);
  std::vector<std::shared_ptr<Recorder>> together;
  for (uint32_t i = 0; i < 3; ++i) {
    together.push_back(Run(*other, Prompt(10 + 15 * static_cast<int>(i), i)));
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(together[i]->Wait().status, absl::OkStatus());
    EXPECT_EQ(together[i]->tokens(), alone[i]);
  }
  EXPECT_TRUE(other->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_EQ(other->gauges().held_blocks, 0);
  EXPECT_TRUE(other->gauges().health.ok());
}

TEST_F(GpuEngineTest, ANaNFailsItsRequestAlone) {
  const std::unique_ptr<Engine> gpu = Start(Machine::kGpu), other = Start(Machine::kGpu);
  const auto clean = Run(*other, Prompt(20, 1));
  clean->Wait();
  std::vector<TokenId> poisoned = Prompt(20, 2);
  poisoned[9] = kPoison;
  const auto bad = Run(*gpu, poisoned), again = Run(*gpu, Prompt(20, 1));
  EXPECT_EQ(bad->Wait().status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(again->Wait().status, absl::OkStatus());
  EXPECT_EQ(again->tokens(), clean->tokens());
  EXPECT_TRUE(gpu->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_EQ(gpu->gauges().held_blocks, 0);
}

// What a request asks for beside its seed. The first ones may be drawn on the device.
using Change = std::function<void(SamplingParams*)>;
const Change kDrawn[] = {
    [](SamplingParams* p) { p->temperature = 0; },
    [](SamplingParams* p) { p->temperature = 1; },
    [](SamplingParams* p) { p->temperature = 0.6f, p->top_k = 4; },
    [](SamplingParams* p) { p->temperature = 1.4f, p->top_p = 0.5f; },
    [](SamplingParams* p) { p->temperature = 1.1f, p->min_p = 0.2f; },
    [](SamplingParams* p) { p->top_k = 40, p->top_p = 0.9f, p->min_p = 0.01f, p->n = 2; },
};
const Change kFromLogits[] = {
    [](SamplingParams* p) {
      p->logit_bias = {{20, 3.0f}};
    },
    [](SamplingParams* p) { p->repetition_penalty = 1.3f; },
    [](SamplingParams* p) { p->presence_penalty = 0.7f, p->frequency_penalty = 0.4f; },
    [](SamplingParams* p) { p->logprobs = 2; },
    // Banned until there are three tokens, drawn thereafter.
    [](SamplingParams* p) {
      p->min_tokens = 3, p->stop_tokens = {20, 21, 22, 23};
    },
};

std::vector<Change> AllChanges() {
  std::vector<Change> changes(std::begin(kDrawn), std::end(kDrawn));
  changes.insert(changes.end(), std::begin(kFromLogits), std::end(kFromLogits));
  return changes;
}

TEST_F(GpuEngineTest, DrawsWhatTheHostWould) {
  // All at once, beside prompts that are scored and embedded.
  const auto run = [](Engine& engine) {
    std::vector<std::shared_ptr<Recorder>> sinks;
    uint64_t seed = 0;
    for (const Change& change : AllChanges()) {
      sinks.push_back(Run(engine, Prompt(9 + static_cast<int>(seed), 5), [&](Request* request) {
        request->sampling.logit_bias = {};
        request->sampling.temperature = 0.9f;
        request->sampling.seed = ++seed;
        change(&request->sampling);
      }));
    }
    sinks.push_back(Run(engine, Prompt(17, 6), [](Request* request) { request->score = true; }));
    sinks.push_back(
        Run(engine, Prompt(17, 7), [](Request* request) { request->pooling = Pooling::kMean; }));
    return sinks;
  };
  const std::unique_ptr<Engine> device = Start(Machine::kGpu);
  const std::unique_ptr<Engine> host = Start(Machine::kGpuWithoutDraws);
  const auto actual = run(*device), expected = run(*host);
  std::set<std::vector<TokenId>> distinct;
  for (size_t i = 0; i < expected.size(); ++i) {
    const RequestResult result = actual[i]->Wait(), wanted = expected[i]->Wait();
    EXPECT_EQ(result.status, wanted.status) << i;
    EXPECT_EQ(result.completion_tokens, wanted.completion_tokens) << i;
    EXPECT_EQ(actual[i]->tokens(), expected[i]->tokens()) << i;
    EXPECT_TRUE(result.embedding == wanted.embedding);
    ASSERT_EQ(result.prompt_logprobs.size(), wanted.prompt_logprobs.size());
    for (size_t j = 1; j < wanted.prompt_logprobs.size(); ++j) {
      EXPECT_EQ(result.prompt_logprobs[j].logprob, wanted.prompt_logprobs[j].logprob);
    }
    distinct.insert(actual[i]->tokens());
  }
  EXPECT_GT(distinct.size(), 8u);
  EXPECT_FALSE(actual.back()->Wait().embedding.empty());
}

TEST_F(GpuEngineTest, ReadsBackNoLogitsThatNobodyWants) {
  const std::unique_ptr<Engine> gpu = Start(Machine::kGpu);
  const auto read = [&](const Change& change) {
    const int64_t before = control_->bytes_to_host;
    const auto sink = Run(*gpu, Prompt(9, 5), [&](Request* request) {
      request->sampling.logit_bias = {};
      request->attention = AttentionDetail::kOff;
      change(&request->sampling);
    });
    EXPECT_EQ(sink->Wait().status, absl::OkStatus());
    EXPECT_EQ(sink->tokens().size(), 6u);
    return control_->bytes_to_host - before;
  };
  constexpr int64_t kToken = 4, kRow = 4 * kVocab;
  EXPECT_EQ(read([](SamplingParams*) {}), 6 * kToken);
  EXPECT_EQ(read([](SamplingParams* p) { p->temperature = 1, p->seed = 3; }), 6 * kToken);
  EXPECT_EQ(read([](SamplingParams* p) { p->logprobs = 0; }), 6 * kRow);
  EXPECT_EQ(read([](SamplingParams* p) { p->min_tokens = 2; }), 2 * kRow + 4 * kToken);
}

void ExpectSameAttention(const AttentionReport& actual, const AttentionReport& expected) {
  ASSERT_EQ(actual.layers.size(), expected.layers.size());
  for (size_t i = 0; i < expected.layers.size(); ++i) {
    const auto &buckets = actual.layers[i].buckets, &wanted = expected.layers[i].buckets;
    ASSERT_EQ(buckets.size(), wanted.size());
    for (size_t j = 0; j < wanted.size(); ++j) {
      EXPECT_EQ(buckets[j].rows, wanted[j].rows);
      EXPECT_EQ(buckets[j].entropy, wanted[j].entropy);
      EXPECT_EQ(buckets[j].max_probability, wanted[j].max_probability);
    }
  }
}

// The engine begins the next step while one runs, where the device draws. Requests of random sizes
// that come and go, end by tokens of the end, are preempted and cancelled: what is heard and
// measured is as where each step waits for the one before.
TEST_F(GpuEngineTest, StepsBegunBesideOthersLoseAndAddNothing) {
  const auto run = [this](Machine machine, bool cancels) {
    const std::unique_ptr<Engine> engine = Start(machine, /*kv_memory_bytes=*/32 << 10);
    std::mt19937 random(11);
    std::vector<std::shared_ptr<Recorder>> sinks;
    for (uint32_t i = 0; i < 28; ++i) {
      RequestId id;
      sinks.push_back(Run(*engine, Prompt(1 + static_cast<int>(random() % 40), i), [&](Request* r) {
        r->sampling.logit_bias = {};
        r->sampling.temperature = i % 3 == 0 ? 0 : 1.2f;
        r->sampling.seed = i;
        r->sampling.n = i % 7 == 0 ? 2 : 1;
        r->sampling.max_tokens = 1 + static_cast<int>(random() % 50);
        // Some forty of the vocabulary's tokens end it.
        for (TokenId t = 8 + static_cast<int>(i % 6); t < kVocab; t += 6) {
          if (i % 2 == 0 && t != kPoison) r->sampling.stop_tokens.push_back(t);
        }
        r->attention = AttentionDetail::kLayers;
        id = r->id;
      }));
      if (i % 5 == 4) sinks.back()->WaitForTokens(static_cast<int>(random() % 4));
      if (cancels && i % 4 == 1) engine->Cancel(id);
    }
    EXPECT_TRUE(engine->Drain(absl::Now() + absl::Seconds(120)));
    EXPECT_EQ(engine->gauges().held_blocks, 0);
    EXPECT_EQ(engine->gauges().waiting + engine->gauges().running, 0);
    return sinks;
  };
  const auto expected = run(Machine::kGpuWithoutDraws, false);
  EXPECT_EQ(control_->overlaps, 0);
  const auto actual = run(Machine::kGpu, false), some = run(Machine::kGpu, true);
  EXPECT_GT(control_->overlaps, 50);
  int stopped = 0, preempted = 0, cancelled = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const RequestResult wanted = expected[i]->Wait(), result = actual[i]->Wait();
    ASSERT_EQ(result.status, wanted.status) << i;
    if (!wanted.status.ok()) continue;  // it met the poison
    EXPECT_EQ(actual[i]->tokens(), expected[i]->tokens()) << i;
    EXPECT_EQ(result.completion_tokens, wanted.completion_tokens) << i;
    ExpectSameAttention(result.generated_attention, wanted.generated_attention);
    EXPECT_EQ(some[i]->results(), 1);
    const RequestResult left = some[i]->Wait();
    if (left.status.ok()) {
      EXPECT_EQ(some[i]->tokens(), expected[i]->tokens()) << i;
    }
    cancelled += absl::IsCancelled(left.status);
    preempted += result.preemptions;
    stopped += i % 2 == 0 && result.completion_tokens < 10;
  }
  EXPECT_GT(stopped, 5);
  EXPECT_GT(preempted, 0);
  EXPECT_GT(cancelled, 2);
}

TEST_F(GpuEngineTest, AFaultFailsTheStepsThatAreBegunAndNoOther) {
  const std::unique_ptr<Engine> gpu = Start(Machine::kGpu);
  const auto longer = [](Request* request) {
    request->sampling.logit_bias = {};
    request->sampling.max_tokens = 80;
  };
  const auto clean = Run(*gpu, Prompt(20, 1), longer);
  EXPECT_EQ(clean->Wait().status, absl::OkStatus());
  const auto first = Run(*gpu, Prompt(20, 1), longer), second = Run(*gpu, Prompt(9, 2), longer);
  first->WaitForTokens(5);
  second->WaitForTokens(5);
  control_->fault = "CUDA: misaligned address";
  EXPECT_EQ(first->Wait().status, absl::InternalError("CUDA: misaligned address"));
  EXPECT_EQ(second->Wait().status, absl::InternalError("CUDA: misaligned address"));
  const auto again = Run(*gpu, Prompt(20, 1), longer);
  EXPECT_EQ(again->Wait().status, absl::OkStatus());
  EXPECT_EQ(again->tokens(), clean->tokens());
  EXPECT_TRUE(gpu->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_EQ(gpu->gauges().held_blocks, 0);
}

TEST_F(GpuEngineTest, ANaNIsDrawnFromByNobody) {
  // Neighbours in one step; the host says the same of the same logits.
  const auto run = [](Engine& engine) {
    std::vector<TokenId> poisoned = Prompt(20, 2);
    poisoned[9] = kPoison;
    const auto drawn = [](Request* request) { request->sampling.logit_bias = {}; };
    return std::pair(Run(engine, poisoned, drawn), Run(engine, Prompt(20, 1), drawn));
  };
  const std::unique_ptr<Engine> gpu = Start(Machine::kGpu);
  const std::unique_ptr<Engine> host = Start(Machine::kGpuWithoutDraws);
  const auto [bad, good] = run(*gpu);
  const auto [host_bad, host_good] = run(*host);
  const absl::Status status = bad->Wait().status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("logits from the model: NaN"));
  EXPECT_EQ(status, host_bad->Wait().status);
  EXPECT_EQ(good->Wait().status, absl::OkStatus());
  EXPECT_EQ(host_good->Wait().status, absl::OkStatus());
  EXPECT_EQ(good->tokens().size(), 6u);
  EXPECT_EQ(good->tokens(), host_good->tokens());
  EXPECT_TRUE(gpu->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_EQ(gpu->gauges().held_blocks, 0);
}

TEST_F(GpuEngineTest, ALostDeviceIsTold) {
  const std::unique_ptr<Engine> gpu = Start(Machine::kGpu);
  control_->fault = "CUDA: unspecified launch failure";
  control_->fault_is_fatal = true;
  EXPECT_EQ(Run(*gpu, Prompt(20, 1))->Wait().status,
            absl::InternalError("CUDA: unspecified launch failure"));
  const RequestResult later = Run(*gpu, Prompt(20, 1))->Wait();
  EXPECT_EQ(later.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(later.status.message()), HasSubstr("the GPU is lost"));
  EXPECT_TRUE(gpu->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_THAT(std::string(gpu->gauges().health.message()), HasSubstr("the GPU is lost"));
}

}  // namespace
}  // namespace acuity::engine
