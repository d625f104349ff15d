// The façade on a small random model: what callers hear, exactly once, whatever happens to a
// request; that neighbours never notice; and that every block comes back.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::engine {
namespace {

using ::testing::HasSubstr;
using testing::kPoison;
using testing::kVocab;
using testing::Recorder;
using testing::TemporaryDirectory;

constexpr int kContext = 256;
constexpr int64_t kBlockBytes = 2 * 16 * 16 * 4;

testing::Bytes PoisonedLlama() {
  testing::GgufBuilder b = testing::ServableLlama();
  b.SetUint32("llama.context_length", kContext);
  return testing::PoisonedLlama(std::move(b));
}

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() { directory_.Write("model.gguf", PoisonedLlama()); }

  EngineOptions Options() const {
    return {.name = "tiny",
            .path = directory_ / "model.gguf",
            .dtype = kernels::DType::kFloat32,
            .kv_memory_bytes = 256 * kBlockBytes,
            .max_batch_tokens = 64,
            .max_running = 16,
            .report_min_tokens = 1 << 20};
  }
  void Start(const EngineOptions& options) {
    auto engine = Engine::Create(options, &pool_, nullptr);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void Start() { Start(Options()); }

  static Request Greedy(std::vector<TokenId> prompt, int max_tokens) {
    Request request;
    request.id = Engine::NextRequestId();
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.sampling.logit_bias = {{kPoison, -100.0f}};  // not to be chosen by the model itself
    request.arrival = absl::Now();
    return request;
  }
  // Clean tokens, drawn from `seed`.
  static std::vector<TokenId> Prompt(int size, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<TokenId> prompt;
    for (int i = 0; i < size; ++i) prompt.push_back(8 + static_cast<int>(random() % (kVocab - 8)));
    return prompt;
  }
  absl::Status Submit(Request request, std::shared_ptr<Recorder> sink) {
    const absl::Status fits = engine_->Prepare(&request);
    if (!fits.ok()) return fits;
    return engine_->Submit(std::make_shared<const Request>(std::move(request)), std::move(sink));
  }
  std::shared_ptr<Recorder> Run(Request request) {
    auto sink = std::make_shared<Recorder>();
    EXPECT_EQ(Submit(std::move(request), sink), absl::OkStatus());
    return sink;
  }
  void ExpectIdle() {
    ASSERT_TRUE(engine_->Drain(absl::Now() + absl::Seconds(60)));
    const EngineGauges gauges = engine_->gauges();
    EXPECT_EQ(gauges.held_blocks, 0);
    EXPECT_EQ(gauges.running, 0);
    EXPECT_EQ(gauges.waiting, 0);
  }

  TemporaryDirectory directory_;
  kernels::ThreadPool pool_{2};
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, TokensThenOneResult) {
  Start();
  const auto sink = Run(Greedy(Prompt(100, 1), 20));
  const RequestResult result = sink->Wait();
  EXPECT_EQ(result.status, absl::OkStatus());
  EXPECT_EQ(sink->tokens().size(), 20u);
  EXPECT_EQ(result.prompt_tokens, 100);
  EXPECT_EQ(result.completion_tokens, 20);
  EXPECT_EQ(result.cached_tokens, 0);
  EXPECT_GE(result.timings.queue, absl::ZeroDuration());
  EXPECT_GE(result.timings.time_to_first_token, result.timings.queue);
  EXPECT_GE(result.timings.total, result.timings.time_to_first_token);
  ExpectIdle();
  EXPECT_EQ(engine_->gauges().generated_tokens, 20);
  EXPECT_EQ(sink->results(), 1);
}

TEST_F(EngineTest, EightBitPagesTakeAQuarterAndSayWhatTheyAre) {
  EngineOptions options = Options();
  Start(options);
  EXPECT_EQ(engine_->info().kv_dtype, "float32");
  const int blocks = engine_->info().num_blocks;
  options.kv_dtype = kernels::DType::kFloat8;
  Start(options);
  EXPECT_EQ(engine_->info().dtype, "float32");
  EXPECT_EQ(engine_->info().kv_dtype, "float8");
  EXPECT_EQ(engine_->info().num_blocks, 4 * blocks);
  EXPECT_EQ(engine_->info().kv_bytes, options.kv_memory_bytes);
  Request request = Greedy(Prompt(100, 1), 20);
  request.attention = AttentionDetail::kLayers;
  const auto sink = Run(request);
  const RequestResult first = sink->Wait();
  EXPECT_EQ(first.status, absl::OkStatus());
  EXPECT_GT(first.prompt_attention.layers[0].buckets.back().entropy, 0);
  // Read from pages that another request left: the same tokens.
  request.id = Engine::NextRequestId();
  const auto again = Run(request);
  EXPECT_GT(again->Wait().cached_tokens, 0);
  EXPECT_EQ(again->tokens(), sink->tokens());
  ExpectIdle();
}

class PagesOf : public EngineTest, public ::testing::WithParamInterface<kernels::DType> {};
INSTANTIATE_TEST_SUITE_P(Types, PagesOf,
                         ::testing::Values(kernels::DType::kFloat32, kernels::DType::kFloat8));

TEST_P(PagesOf, ANaNFailsItsRequestAloneAndLeavesNothing) {
  EngineOptions options = Options();
  options.kv_dtype = GetParam();
  Start(options);
  std::vector<std::vector<TokenId>> alone;
  for (uint32_t i = 0; i < 4; ++i) {
    const auto sink = Run(Greedy(Prompt(40, i), 60));
    sink->Wait();
    alone.push_back(sink->tokens());
  }
  std::vector<TokenId> poisoned = Prompt(90, 9);
  poisoned[50] = kPoison;
  // Twice: the second may not find the first one's blocks by their hash.
  for (int round = 0; round < 2; ++round) {
    std::vector<std::shared_ptr<Recorder>> clean;
    for (uint32_t i = 0; i < 4; ++i) {
      clean.push_back(Run(Greedy(Prompt(40, i), 60)));
      Request request = Greedy(poisoned, 10);
      request.attention = AttentionDetail::kLayers;
      const RequestResult bad = Run(std::move(request))->Wait();
      EXPECT_EQ(bad.status.code(), absl::StatusCode::kInternal) << bad.status;
      EXPECT_EQ(bad.completion_tokens, 0);
      for (const LayerReport& layer : bad.prompt_attention.layers) {
        int64_t rows = 0;
        for (const AttentionBucket& bucket : layer.buckets) {
          EXPECT_TRUE(std::isfinite(bucket.entropy));
          if (bucket.n_max > 1) {
            EXPECT_GT(bucket.entropy, 0) << "a NaN looks like sharp attention";
          }
          rows += bucket.rows;
        }
        EXPECT_LE(rows, 50) << "a row was counted that sees the NaN";
      }
      EXPECT_LE(bad.cached_tokens, 48) << "a block that holds NaN was found again";
    }
    for (uint32_t i = 0; i < 4; ++i) {
      EXPECT_EQ(clean[i]->Wait().status, absl::OkStatus());
      EXPECT_EQ(clean[i]->tokens(), alone[i]);
    }
  }
  ExpectIdle();
}

TEST_F(EngineTest, ScoringANaNIsAnErrorToo) {
  Start();
  Request request = Greedy(Prompt(30, 3), 1);
  request.prompt[10] = kPoison;
  request.score = true;
  EXPECT_EQ(Run(request)->Wait().status.code(), absl::StatusCode::kInternal);
  ExpectIdle();
}

TEST_F(EngineTest, EmbeddingANaNIsAnErrorAndNotCached) {
  Start();
  for (const Pooling pooling : {Pooling::kLast, Pooling::kMean}) {
    Request request = Greedy(Prompt(100, 3), 1);
    request.prompt[70] = kPoison;
    request.pooling = pooling;
    const RequestResult bad = Run(request)->Wait();
    EXPECT_EQ(bad.status.code(), absl::StatusCode::kInternal) << bad.status;
    EXPECT_TRUE(bad.embedding.empty());
  }
  ExpectIdle();
}

std::vector<float> Embedding(const RequestResult& result) {
  EXPECT_EQ(result.status, absl::OkStatus());
  EXPECT_EQ(result.completion_tokens, 0);
  return result.embedding;
}

TEST_F(EngineTest, EmbeddingsAreTheSameAloneInCompanyAndPreempted) {
  Start();
  const auto embed = [](uint32_t seed, int size) {
    Request request = Greedy(Prompt(size, seed), 1);
    request.sampling.max_tokens = 0;
    request.pooling = seed % 2 == 0 ? Pooling::kMean : Pooling::kLast;
    return request;
  };
  // The mean is that of every prefix's last state.
  std::vector<double> sum(32);
  for (int size = 1; size <= 20; ++size) {
    Request request = embed(2, size);
    request.pooling = Pooling::kLast;
    const std::vector<float> last = Embedding(Run(request)->Wait());
    ASSERT_EQ(last.size(), 32u);
    for (size_t i = 0; i < last.size(); ++i) sum[i] += last[i];
  }
  const std::vector<float> mean = Embedding(Run(embed(2, 20))->Wait());
  for (size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(mean[i], sum[i] / 20, 1e-5);

  std::vector<std::vector<float>> alone;
  for (uint32_t i = 0; i < 12; ++i) {
    alone.push_back(Embedding(Run(embed(i, 100 + static_cast<int>(i) * 10))->Wait()));
  }
  ExpectIdle();
  EngineOptions tight = Options();
  tight.kv_memory_bytes = 24 * kBlockBytes;
  tight.max_batch_tokens = 24;
  Start(tight);
  std::vector<std::shared_ptr<Recorder>> sinks, others;
  for (uint32_t i = 0; i < 12; ++i) {
    others.push_back(Run(Greedy(Prompt(30, 100 + i), 100)));
    sinks.push_back(Run(embed(i, 100 + static_cast<int>(i) * 10)));
  }
  int preemptions = 0;
  for (uint32_t i = 0; i < 12; ++i) {
    const RequestResult result = sinks[i]->Wait();
    EXPECT_EQ(Embedding(result), alone[i]) << "request " << i;
    EXPECT_EQ(result.prompt_logprobs.size(), 0u);
    preemptions += result.preemptions + others[i]->Wait().preemptions;
  }
  EXPECT_GT(preemptions, 0);
  ExpectIdle();
}

TEST_F(EngineTest, TheSameOutputAloneInCompanyAndPreempted) {
  Start();
  std::vector<std::vector<TokenId>> alone;
  for (uint32_t i = 0; i < 12; ++i) {
    const auto sink = Run(Greedy(Prompt(30 + static_cast<int>(i) * 5, i), 100));
    sink->Wait();
    alone.push_back(sink->tokens());
  }
  ExpectIdle();
  EngineOptions tight = Options();
  tight.kv_memory_bytes = 24 * kBlockBytes;  // one and a half contexts for 12 sequences
  Start(tight);
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (uint32_t i = 0; i < 12; ++i) {
    sinks.push_back(Run(Greedy(Prompt(30 + static_cast<int>(i) * 5, i), 100)));
  }
  int preemptions = 0;
  for (uint32_t i = 0; i < 12; ++i) {
    const RequestResult result = sinks[i]->Wait();
    EXPECT_EQ(result.status, absl::OkStatus());
    EXPECT_EQ(sinks[i]->tokens(), alone[i]) << "request " << i;
    preemptions += result.preemptions;
  }
  EXPECT_GT(preemptions, 0);
  ExpectIdle();
}

void ExpectSame(const AttentionReport& a, const AttentionReport& b) {
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t layer = 0; layer < a.layers.size(); ++layer) {
    ASSERT_EQ(a.layers[layer].heads.size(), b.layers[layer].heads.size());
    for (size_t head = 0; head < a.layers[layer].heads.size(); ++head) {
      const auto &x = a.layers[layer].heads[head].buckets, &y = b.layers[layer].heads[head].buckets;
      ASSERT_EQ(x.size(), y.size());
      for (size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(x[i].rows, y[i].rows);
        EXPECT_EQ(x[i].entropy, y[i].entropy);
        EXPECT_EQ(x[i].normalized_entropy, y[i].normalized_entropy);
        EXPECT_EQ(x[i].effective_context, y[i].effective_context);
        EXPECT_EQ(x[i].effective_context_fraction, y[i].effective_context_fraction);
        EXPECT_EQ(x[i].max_probability, y[i].max_probability);
      }
    }
  }
}

void ExpectSame(const SpanReport& a, const SpanReport& b) {
  EXPECT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t layer = 0; layer < a.layers.size(); ++layer) {
    for (size_t head = 0; head < a.layers[layer].size(); ++head) {
      EXPECT_EQ(a.layers[layer][head].effective_context, b.layers[layer][head].effective_context);
      EXPECT_EQ(a.layers[layer][head].mass, b.layers[layer][head].mass);
    }
  }
}

int64_t Rows(const AttentionReport& report) {
  int64_t rows = 0;
  for (const AttentionBucket& bucket : report.layers[0].buckets) rows += bucket.rows;
  return rows;
}

// Some watch parts of their prompt: each row is measured once, whatever is computed again.
TEST_F(EngineTest, TheSameAttentionAloneInCompanyAndPreempted) {
  const auto request = [&](int i) {
    Request request = Greedy(Prompt(30 + i * 5, static_cast<uint32_t>(i)), 100);
    request.attention = AttentionDetail::kHeads;
    if (i % 3 == 0) request.watch = {{0, 9}, {4, 30}};
    return request;
  };
  Start();
  std::vector<RequestResult> alone;
  for (int i = 0; i < 12; ++i) alone.push_back(Run(request(i))->Wait());
  EngineOptions tight = Options();
  tight.kv_memory_bytes = 24 * kBlockBytes;
  tight.max_batch_tokens = 24;
  Start(tight);
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (int i = 0; i < 12; ++i) sinks.push_back(Run(request(i)));
  int preemptions = 0;
  for (int i = 0; i < 12; ++i) {
    const RequestResult result = sinks[i]->Wait();
    EXPECT_EQ(Rows(result.prompt_attention), 30 + i * 5);
    EXPECT_EQ(Rows(result.generated_attention), 99);  // the last token is not computed
    EXPECT_EQ(result.prompt_spans.rows, i % 3 == 0 ? 1 : 0);
    EXPECT_EQ(result.generated_spans.rows, i % 3 == 0 ? 99 : 0);
    ExpectSame(result.prompt_attention, alone[i].prompt_attention);
    ExpectSame(result.generated_attention, alone[i].generated_attention);
    ExpectSame(result.prompt_spans, alone[i].prompt_spans);
    ExpectSame(result.generated_spans, alone[i].generated_spans);
    preemptions += result.preemptions;
  }
  EXPECT_GT(preemptions, 0);
}

TEST_F(EngineTest, AThousandCancellationsLeaveNoBlock) {
  Start();
  std::mt19937 random(5);
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (int i = 0; i < 1000; ++i) {
    Request request = Greedy(Prompt(1 + static_cast<int>(random() % 120), random()),
                             1 + static_cast<int>(random() % 100));
    request.sampling.n = 1 + static_cast<int>(random() % 3);
    const RequestId id = request.id;
    sinks.push_back(Run(request));
    if (random() % 4 == 0) sinks.back()->WaitForTokens(random() % 30);
    engine_->Cancel(id);
    if (random() % 8 == 0) engine_->Cancel(id);  // twice, and after its end: no effect
  }
  int cancelled = 0;
  for (const auto& sink : sinks) cancelled += absl::IsCancelled(sink->Wait().status);
  EXPECT_GT(cancelled, 500);
  ExpectIdle();
  for (const auto& sink : sinks) EXPECT_EQ(sink->results(), 1);
}

TEST_F(EngineTest, ASinkThatHearsNoMoreIsCancelled) {
  Start();
  auto sink = std::make_shared<Recorder>(/*tokens_to_hear=*/3);
  ASSERT_EQ(Submit(Greedy(Prompt(20, 1), 200), sink), absl::OkStatus());
  EXPECT_EQ(sink->Wait().status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sink->tokens().size(), 3u);
  ExpectIdle();
}

TEST_F(EngineTest, DeadlinesHoldInTheQueueAndInTheBatch) {
  EngineOptions options = Options();
  options.max_running = 1;
  Start(options);
  Request running = Greedy(Prompt(20, 1), 200);
  running.sampling.n = 1;
  running.deadline = absl::Now() + absl::Milliseconds(20);
  Request queued = Greedy(Prompt(20, 2), 5);
  queued.deadline = absl::Now();
  const auto first = Run(running), second = Run(queued);
  EXPECT_EQ(second->Wait().status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(second->tokens().empty());
  const RequestResult result = first->Wait();
  if (!result.status.ok()) {  // 200 tokens may take less than 20 ms
    EXPECT_EQ(result.status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  ExpectIdle();
}

TEST_F(EngineTest, AFullQueueNamesItsLimitAndLosesNothing) {
  EngineOptions options = Options();
  options.max_running = 1;
  options.max_waiting = 3;
  Start(options);
  std::vector<std::shared_ptr<Recorder>> taken;
  absl::Status refused;
  for (uint32_t i = 0; i < 50 && refused.ok(); ++i) {
    auto sink = std::make_shared<Recorder>();
    refused = Submit(Greedy(Prompt(100, i), 150), sink);
    if (refused.ok()) {
      taken.push_back(sink);
    } else {
      EXPECT_EQ(sink->results(), 0);
    }
  }
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("the limit is 3"));
  for (const auto& sink : taken) EXPECT_EQ(sink->Wait().status, absl::OkStatus());
  ExpectIdle();
}

TEST_F(EngineTest, DrainingRefusesTheNewAndCancelsWhatIsLateAtTheDeadline) {
  Start();
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (uint32_t i = 0; i < 16; ++i) sinks.push_back(Run(Greedy(Prompt(200, i), 56)));
  EXPECT_FALSE(engine_->Drain(absl::Now()));
  EXPECT_EQ(Submit(Greedy(Prompt(5, 1), 5), std::make_shared<Recorder>()).code(),
            absl::StatusCode::kUnavailable);
  int cancelled = 0;
  for (const auto& sink : sinks) cancelled += absl::IsCancelled(sink->Wait().status);
  EXPECT_GT(cancelled, 0);
  EXPECT_EQ(engine_->gauges().held_blocks, 0);
}

TEST_F(EngineTest, DestructionTellsEveryone) {
  Start();
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (uint32_t i = 0; i < 40; ++i) sinks.push_back(Run(Greedy(Prompt(100, i), 100)));
  engine_.reset();
  for (const auto& sink : sinks) EXPECT_EQ(sink->results(), 1);
}

TEST_F(EngineTest, PrepareNamesFieldValueAndLimit) {
  Start();
  const auto error = [&](auto change) {
    Request request = Greedy(Prompt(10, 1), 5);
    change(request);
    const absl::Status status = engine_->Prepare(&request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error([](Request& r) { r.prompt.clear(); }), HasSubstr("at least 1"));
  EXPECT_THAT(error([](Request& r) { r.prompt[3] = kVocab; }), HasSubstr("261 is not in the"));
  EXPECT_THAT(error([](Request& r) { r.prompt[3] = -1; }), HasSubstr("0 to 260"));
  EXPECT_THAT(error([](Request& r) { r.prompt = Prompt(kContext, 1); }),
              HasSubstr("256 tokens, the context holds 256 with the output"));
  EXPECT_THAT(error([](Request& r) { r.sampling.max_tokens = kContext; }), HasSubstr("leaves 246"));
  EXPECT_THAT(error([](Request& r) { r.sampling.min_tokens = 6; }), HasSubstr("max_tokens, 5"));
  EXPECT_THAT(error([](Request& r) { r.sampling.top_k = kVocab + 1; }), HasSubstr("top_k: 262"));
  EXPECT_THAT(error([](Request& r) {
                r.sampling.logit_bias = {{kVocab, 1.0f}};
              }),
              HasSubstr("logit_bias: id 261"));
  EXPECT_THAT(error([](Request& r) { r.sampling.stop_tokens = {-2}; }),
              HasSubstr("stop_token_ids: -2"));
  Request rest = Greedy(Prompt(10, 1), -1);
  ASSERT_EQ(engine_->Prepare(&rest), absl::OkStatus());
  EXPECT_EQ(rest.sampling.max_tokens, kContext - 10);
}

TEST_F(EngineTest, CreateRefusesWhatCannotServeOneSequence) {
  const auto error = [&](auto change) {
    EngineOptions options = Options();
    change(options);
    return std::string(Engine::Create(options, &pool_, nullptr).status().message());
  };
  EXPECT_THAT(error([](EngineOptions& o) { o.max_context = kContext + 1; }),
              HasSubstr("max_context: 257, the model was trained to 256"));
  EXPECT_THAT(error([](EngineOptions& o) { o.kv_memory_bytes = 15 * kBlockBytes; }),
              HasSubstr("hold 240 tokens"));
  EXPECT_THAT(error([](EngineOptions& o) { o.path += ".no"; }), HasSubstr("cannot open"));
  EXPECT_THAT(error([](EngineOptions& o) { o.attention_policy = "ssmax"; }), HasSubstr("ssmax"));
}

}  // namespace
}  // namespace acuity::engine
