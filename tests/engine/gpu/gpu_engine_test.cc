// The whole façade over the GPU's decoder, on the emulated GPU: tokens, statistics, a poisoned
// request, a lost device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/gpu/gpu_decoder.h"
#include "tests/engine/engine_fixture.h"
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

class GpuEngineTest : public ::testing::Test {
 protected:
  GpuEngineTest() { directory_.Write("model.gguf", PoisonedLlama()); }

  std::unique_ptr<Engine> Start(bool on_gpu) {
    EngineOptions options{.name = "tiny",
                          .path = directory_ / "model.gguf",
                          .kv_memory_bytes = 1 << 20,
                          .max_batch_tokens = 128,  // every prompt is one chunk
                          .max_running = 8,
                          .report_min_tokens = 8};
    if (on_gpu) {
      options.make_runner = [control = control_](const Checkpoint& checkpoint, ModelSpec spec,
                                                 ModelOptions model_options,
                                                 kernels::ParallelFor parallel) {
        return GpuDecoder::Create(std::make_unique<HostDevice>(control), checkpoint,
                                  std::move(spec), std::move(model_options), parallel);
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

  static std::shared_ptr<Recorder> Run(Engine& engine, std::vector<TokenId> prompt) {
    Request request;
    request.id = Engine::NextRequestId();
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = 6;
    request.sampling.ignore_eos = true;
    request.sampling.logit_bias = {{kPoison, -100.0f}};  // not to be chosen by the model itself
    request.arrival = absl::Now();
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
  const std::unique_ptr<Engine> gpu = Start(true), cpu = Start(false);
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
  const std::unique_ptr<Engine> other = Start(true);
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
  const std::unique_ptr<Engine> gpu = Start(true), other = Start(true);
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

TEST_F(GpuEngineTest, ALostDeviceIsTold) {
  const std::unique_ptr<Engine> gpu = Start(true);
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
