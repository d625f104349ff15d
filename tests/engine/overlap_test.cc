// The engine begins steps beside others where the runner draws: whatever requests ask for, what
// they hear and what is measured of them is, to the bit, as where each step waits for the one
// before. On the CPU's decoder, whose rows depend neither on their batch nor on how a prompt was
// cut.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/sample/sampler.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/forwarding_runner.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::engine {
namespace {

using testing::kPoison;
using testing::kVocab;
using testing::Recorder;

// Draws as a device does, and computes a step only when somebody waits for it.
class DrawsLate final : public ForwardingRunner {
 public:
  // Adds to `overlaps` the steps begun beside others; while `faults`, every 8th step fails.
  DrawsLate(std::unique_ptr<ModelRunner> runner, const bool& faults, int* overlaps)
      : ForwardingRunner(std::move(runner)), faults_(faults), overlaps_(*overlaps) {}

  bool draws() const override { return true; }
  void ZeroBlocks(std::span<const int32_t> blocks) override {
    zeroed_.insert(zeroed_.end(), blocks.begin(), blocks.end());
  }
  absl::Status Start(const Batch& batch) override {
    EXPECT_LT(begun_.size(), 2u);
    overlaps_ += !begun_.empty();
    Begun& begun = begun_.emplace_back(Begun{batch, {}, std::exchange(zeroed_, {})});
    for (kernels::WatchedRow& row : begun.batch.watched) {  // the batch's, which may go
      begun.spans.emplace_back(row.spans, row.spans + row.num_spans);
      row.spans = begun.spans.back().data();
    }
    return absl::OkStatus();
  }

  absl::Status Finish(StepOutput* output) override {
    const Begun begun = std::move(begun_.front());
    begun_.pop_front();
    const Batch& asked = begun.batch;
    ForwardingRunner::ZeroBlocks(begun.zeroed);
    if (faults_ && ++steps_ % 8 == 0) {
      drawn_.assign(asked.draws.size(), 0);
      return absl::InternalError("a fault");
    }

    Batch batch = asked;
    for (int32_t& token : batch.tokens) {
      // Behind a token that could not be drawn anything may follow: nobody hears it.
      if (token <= Batch::DrawnBefore(0))
        token = std::max(0, drawn_.at(Batch::DrawnBefore(0) - token));
    }
    for (const Draw& draw : asked.draws) batch.logit_rows.push_back(draw.row);
    std::sort(batch.logit_rows.begin(), batch.logit_rows.end());
    batch.draws.clear();
    const absl::Status status = Step(batch, output);
    if (!status.ok()) return status;

    logits_.clear();
    drawn_.clear();
    for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const std::span<const float> row = output->logits.subspan(i * kVocab, kVocab);
      if (drawn_.size() < asked.draws.size() &&
          asked.draws[drawn_.size()].row == batch.logit_rows[i]) {
        drawn_.push_back(DrawFrom(row, asked.draws[drawn_.size()].sample));
      } else {
        logits_.insert(logits_.end(), row.begin(), row.end());
      }
    }
    output->logits = logits_;
    output->tokens = drawn_;
    return absl::OkStatus();
  }

 private:
  struct Begun {
    Batch batch;
    std::vector<std::vector<kernels::KeySpan>> spans;
    std::vector<int32_t> zeroed;
  };
  absl::Status Step(const Batch& batch, StepOutput* output) {
    const absl::Status started = ForwardingRunner::Start(batch);
    return started.ok() ? ForwardingRunner::Finish(output) : started;
  }
  int32_t DrawFrom(std::span<const float> logits, const kernels::SampleRow& row) {
    const SamplingParams params{
        .temperature = row.temperature, .top_k = row.top_k, .top_p = row.top_p, .min_p = row.min_p};
    const auto sampled =
        sampler_.Sample(logits, params, {.seed = row.seed, .position = row.position});
    return sampled.ok() ? sampled->token : -1;
  }

  const bool& faults_;
  int& overlaps_;
  int steps_ = 0;
  std::deque<Begun> begun_;
  std::vector<int32_t> zeroed_, drawn_;
  std::vector<float> logits_;
  Sampler sampler_{kVocab};
};

void Tell(const AttentionReport& report, std::ostream& text) {
  for (const LayerReport& layer : report.layers) {
    for (const HeadReport& head : layer.heads) {
      for (const AttentionBucket& bucket : head.buckets) {
        text << " " << bucket.n_min << ":" << bucket.rows << "," << bucket.entropy << ","
             << bucket.max_probability;
      }
    }
  }
  text << "\n";
}

void Tell(const SpanReport& report, std::ostream& text) {
  text << report.rows << " rows";
  for (const auto& layer : report.layers) {
    for (const HeadSpans& head : layer) {
      text << " " << head.normalized_entropy;
      for (const double mass : head.mass) text << "," << mass;
    }
  }
  text << "\n";
}

// All that a request heard, every bit of it.
std::string Tell(Recorder& sink) {
  const RequestResult result = sink.Wait();
  std::ostringstream text;
  text << std::hexfloat << result.status << " " << result.completion_tokens << " tokens:";
  for (const TokenId token : sink.tokens()) text << " " << token;
  if (!result.status.ok()) return text.str();  // how far the rest came is as the steps fell
  text << "\nlogprobs:";
  for (const TokenLogprob& token : result.prompt_logprobs) text << " " << token.logprob;
  text << "\nembedding:";
  for (const float value : result.embedding) text << " " << value;
  text << "\n";
  Tell(result.prompt_attention, text);
  Tell(result.generated_attention, text);
  Tell(result.prompt_spans, text);
  Tell(result.generated_spans, text);
  return text.str();
}

enum class Machine { kOneAfterTheOther, kOverlapping };

class OverlapTest : public ::testing::Test {
 protected:
  OverlapTest() {
    testing::GgufBuilder b = testing::ServableLlama();
    b.SetUint32("llama.context_length", 256);
    directory_.Write("model.gguf", testing::PoisonedLlama(std::move(b)));
  }

  // Prompts are cut, blocks are short.
  std::unique_ptr<Engine> Start(Machine machine) {
    EngineOptions options{.name = "tiny",
                          .path = directory_ / "model.gguf",
                          .dtype = kernels::DType::kFloat32,
                          .kv_memory_bytes = 12 * kBlockBytes,
                          .max_context = 128,
                          .max_batch_tokens = 16,
                          .max_running = 6,
                          .max_waiting = 1024,
                          .report_min_tokens = 1};
    if (machine == Machine::kOverlapping) {
      options.make_runner =
          [this](const Checkpoint& checkpoint, ModelSpec spec, ModelOptions model_options,
                 kernels::ParallelFor parallel) -> absl::StatusOr<std::unique_ptr<ModelRunner>> {
        auto runner =
            ModelRunner::Create(checkpoint, std::move(spec), std::move(model_options), parallel);
        if (!runner.ok()) return runner.status();
        return std::make_unique<DrawsLate>(*std::move(runner), faults_, &overlaps_);
      };
    }
    auto engine = Engine::Create(std::move(options), &pool_, &steps_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  // The i-th of many that differ in everything.
  static Request Any(uint32_t i) {
    std::mt19937 random(i);
    Request r;
    r.id = Engine::NextRequestId();
    for (uint32_t size = 1 + random() % 60; size > 0; --size) {
      r.prompt.push_back(8 + static_cast<int>(random() % (kVocab - 8)));
    }
    r.arrival = absl::Now();
    r.cache_salt = std::to_string(i);  // what is found in the cache would not be measured
    r.attention = AttentionDetail::kHeads;
    r.sampling.seed = i;
    r.sampling.temperature = i % 3 == 0 ? 0 : 1.2f;
    r.sampling.top_k = i % 4 == 2 ? 20 : 0;
    r.sampling.n = i % 7 == 0 ? 3 : 1;
    r.sampling.max_tokens = 1 + static_cast<int>(random() % 50);
    r.sampling.ignore_eos = true;
    // Some forty of the vocabulary's tokens end it.
    for (TokenId t = 8 + static_cast<int>(i % 6); i % 2 == 0 && t < kVocab; t += 6) {
      r.sampling.stop_tokens.push_back(t);
    }
    if (i % 11 == 3) r.sampling.logprobs = 1;  // the host sees the logits
    if (i % 5 == 1) r.watch = {{0, 1}};
    if (i % 13 == 6) r.prompt[r.prompt.size() / 2] = kPoison;
    r.score = i % 9 == 4;
    if (i % 9 >= 6) r.pooling = i % 2 == 0 ? Pooling::kMean : Pooling::kLast;
    return r;
  }

  struct CountSteps final : EngineObserver {
    void OnStep(const StepStats&) override { ++count; }
    void OnInterTokenLatency(absl::Duration) override {}
    void OnRequest(const RequestStats&) override {}
    void OnRejected(const char*) override {}
    int count = 0;
  };

  static constexpr int64_t kBlockBytes = 2 * 16 * 16 * 4;
  testing::TemporaryDirectory directory_;
  kernels::ThreadPool pool_{2};
  CountSteps steps_;
  int overlaps_ = 0;
  bool faults_ = false;
};

TEST_F(OverlapTest, NothingIsLostAndNothingAdded) {
  constexpr uint32_t kRequests = 300;
  int preemptions = 0;
  const auto run = [&](Machine machine, bool cancels) {
    const std::unique_ptr<Engine> engine = Start(machine);
    std::mt19937 random(11);
    std::vector<std::shared_ptr<Recorder>> sinks;
    for (uint32_t i = 0; i < kRequests; ++i) {
      Request request = Any(i);
      const RequestId id = request.id;
      sinks.push_back(std::make_shared<Recorder>());
      EXPECT_EQ(engine->Prepare(&request), absl::OkStatus());
      EXPECT_EQ(engine->Submit(std::make_shared<const Request>(std::move(request)), sinks.back()),
                absl::OkStatus());
      if (i % 5 == 4) sinks.back()->WaitForTokens(static_cast<int>(random() % 4));
      if (cancels && i % 4 == 1) engine->Cancel(id);
    }
    EXPECT_TRUE(engine->Drain(absl::Now() + absl::Seconds(120)));
    EXPECT_EQ(engine->gauges().held_blocks, 0);
    EXPECT_EQ(engine->gauges().waiting + engine->gauges().running, 0);
    std::vector<std::string> heard;
    for (const auto& sink : sinks) {
      heard.push_back(Tell(*sink));
      EXPECT_EQ(sink->results(), 1);
      preemptions += sink->Wait().preemptions;
    }
    return heard;
  };
  const auto count = [](const std::vector<std::string>& heard, const char* what) {
    return std::count_if(heard.begin(), heard.end(),
                         [&](const auto& text) { return text.find(what) != std::string::npos; });
  };

  const std::vector<std::string> expected = run(Machine::kOneAfterTheOther, false);
  EXPECT_EQ(overlaps_, 0);
  EXPECT_GT(std::set(expected.begin(), expected.end()).size(), kRequests * 9 / 10);
  EXPECT_GT(count(expected, "logits from the model"), 10);

  steps_.count = preemptions = 0;
  const std::vector<std::string> actual = run(Machine::kOverlapping, false);
  for (uint32_t i = 0; i < kRequests; ++i) EXPECT_EQ(actual[i], expected[i]) << i;
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(2 * overlaps_, steps_.count);

  // Whom nobody cancelled, and who was in no step that failed, does not hear of it.
  faults_ = true;
  const std::vector<std::string> some = run(Machine::kOverlapping, true);
  for (uint32_t i = 0; i < kRequests; ++i) {
    if (i % 4 == 1 || some[i].find("a fault") != std::string::npos) continue;
    EXPECT_EQ(some[i], expected[i]) << i;
  }
  EXPECT_GT(count(some, "cancelled"), 10);
  EXPECT_GT(count(some, "a fault"), 10);
  EXPECT_LT(count(some, "a fault"), kRequests * 3 / 4);
}

}  // namespace
}  // namespace acuity::engine
