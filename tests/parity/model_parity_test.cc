// The default model against Hugging Face transformers, which shares no code with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/loader/policy.h"
#include "engine/model/model_runner.h"
#include "engine/report/attention_report.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/engine/model/batch_maker.h"
#include "tests/parity/golden_file.h"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;

constexpr int kBlockSize = 16;
constexpr int kMaxTokens = 4096;  // the longest text
constexpr int kChunk = 256;
constexpr int kStride = kMaxTokens / kBlockSize;
constexpr double kLogprobTolerance = 1e-3;
constexpr double kStatsTolerance = 1e-4;

const Checkpoint& Model() {
  static const Checkpoint* const checkpoint = [] {
    auto opened = Checkpoint::Open(DefaultModelPath());
    if (!opened.ok()) {
      std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
      std::abort();
    }
    return std::move(opened)->release();
  }();
  return *checkpoint;
}

kernels::ParallelFor Pool() {
  static kernels::ThreadPool* const pool = new kernels::ThreadPool(2);
  return pool->parallel_for();
}

std::unique_ptr<ModelRunner> MakeRunner(kernels::DType dtype, const std::string& policy) {
  ModelSpec spec = Model().spec();
  const absl::Status status = ApplyPolicy(policy, &spec);
  EXPECT_TRUE(status.ok()) << status;
  ModelOptions options;
  options.weight_dtype = dtype;
  options.kv_dtype = dtype;
  options.block_size = kBlockSize;
  options.kv_memory_bytes = int64_t{512} << 20;
  options.max_batch_tokens = kChunk;
  options.max_logit_rows = kChunk;
  auto runner = ModelRunner::Create(Model(), spec, options, Pool());
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

double LogSumExp(std::span<const float> logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return highest + std::log(sum);
}

// What one pass over a text in chunks gives.
struct Pass {
  std::vector<double> logprobs;             // of tokens 1, 2, ...
  std::vector<float> last;                  // log probabilities after the last token
  std::unique_ptr<AttentionReport> report;  // with `stats`
};

// The rows of one step that have a next token: its log probability.
void AppendLogprobs(std::span<const float> logits, std::span<const int32_t> next, int vocab,
                    std::vector<double>* logprobs) {
  std::vector<double> values(next.size());
  Pool()(static_cast<int64_t>(next.size()), [&](int64_t i) {
    const auto row = logits.subspan(i * vocab, vocab);
    values[i] = row[next[i]] - LogSumExp(row);
  });
  logprobs->insert(logprobs->end(), values.begin(), values.end());
}

Pass RunText(ModelRunner& runner, const std::vector<int32_t>& tokens, bool stats) {
  const ModelSpec& spec = runner.spec();
  std::vector<int32_t> blocks(kStride);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<int> windows;
  std::vector<std::string> policies;
  for (const LayerSpec& layer : spec.layers) {
    windows.push_back(layer.window);
    policies.push_back(layer.policy.name);
  }
  AttentionAccumulator accumulator(spec.num_layers, spec.num_heads, /*by_head=*/true);
  Pass pass;
  Batch batch;
  const int total = static_cast<int>(tokens.size());
  for (int begin = 0; begin < total; begin += kChunk) {
    const int count = std::min(kChunk, total - begin);
    ClearBatch(kStride, &batch);
    AddSequence(std::span(tokens).subspan(begin, count), begin, blocks, kBlockSize, LogitRows::kAll,
                &batch);
    if (stats) MeasureSequences(spec, /*by_head=*/true, &batch);
    StepOutput output;
    const absl::Status status = runner.Step(batch, &output);
    EXPECT_TRUE(status.ok()) << status;
    const int with_next = std::min(count, total - 1 - begin);
    AppendLogprobs(output.logits, std::span(tokens).subspan(begin + 1, with_next), spec.vocab_size,
                   &pass.logprobs);
    for (const kernels::MeasuredRows& rows : batch.measured) {
      accumulator.Add(rows, output.sums.subspan(rows.at), windows);
    }
    if (begin + count == total) {
      const auto row = output.logits.last(spec.vocab_size);
      pass.last.assign(row.begin(), row.end());
      const double lse = LogSumExp(row);
      for (float& value : pass.last) value = static_cast<float>(value - lse);
    }
  }
  if (stats) {
    pass.report = std::make_unique<AttentionReport>(accumulator.Report(policies, /*heads=*/true));
  }
  return pass;
}

struct Distance {
  double max = 0, mean = 0;
};

// `golden` begins with null: the first token has no log probability.
Distance LogprobDistance(const std::vector<double>& logprobs, const Json& golden) {
  EXPECT_EQ(logprobs.size() + 1, golden.size());
  Distance distance;
  for (size_t i = 0; i < logprobs.size(); ++i) {
    const double delta = std::abs(logprobs[i] - golden[i + 1].get<double>());
    if (!(delta <= distance.max)) distance.max = delta;
    distance.mean += delta / static_cast<double>(logprobs.size());
  }
  return distance;
}

double TopDistance(const Pass& pass, const Json& text) {
  double largest = 0;
  for (size_t i = 0; i < text["last_top_ids"].size(); ++i) {
    const double golden = text["last_top_logprobs"][i];
    largest = std::max(largest, std::abs(pass.last[text["last_top_ids"][i].get<int>()] - golden));
  }
  return largest;
}

int ArgMax(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// One sequence being continued greedily.
struct Continuation {
  std::vector<int32_t> blocks;
  std::vector<int32_t> tokens;  // prompt and what follows it
  size_t prompt = 0;
};

// Continues all prompts of greedy.json side by side in one batch.
std::vector<Continuation> ContinueGreedily(ModelRunner& runner, const Json& golden) {
  const int count = golden["max_tokens"];
  const int vocab = runner.spec().vocab_size;
  std::vector<Continuation> sequences;
  Batch batch;
  StepOutput output;
  for (const Json& prompt : golden["prompts"]) {
    Continuation& sequence = sequences.emplace_back();
    sequence.tokens = prompt["prompt_ids"].get<std::vector<int32_t>>();
    sequence.prompt = sequence.tokens.size();
    const int pages = (static_cast<int>(sequence.prompt) + count) / kBlockSize + 1;
    for (int i = 0; i < pages; ++i) {
      sequence.blocks.push_back(i * 16 + static_cast<int>(sequences.size()));
    }
  }
  for (int step = 0; step < count; ++step) {
    ClearBatch(kStride, &batch);
    for (const Continuation& s : sequences) {
      const size_t begin = step == 0 ? 0 : s.tokens.size() - 1;
      AddSequence(std::span(s.tokens).subspan(begin), static_cast<int>(begin), s.blocks, kBlockSize,
                  LogitRows::kLast, &batch);
    }
    const absl::Status status = runner.Step(batch, &output);
    EXPECT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < sequences.size(); ++i) {
      sequences[i].tokens.push_back(ArgMax(output.logits.subspan(i * vocab, vocab)));
    }
  }
  return sequences;
}

void ExpectGreedy(ModelRunner& runner) {
  const Json golden = ReadGolden("greedy.json");
  const std::vector<Continuation> sequences = ContinueGreedily(runner, golden);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Json& prompt = golden["prompts"][i];
    const auto want = prompt["continuation_ids"].get<std::vector<int32_t>>();
    const Continuation& s = sequences[i];
    const auto differs = std::mismatch(want.begin(), want.end(), s.tokens.begin() + s.prompt).first;
    std::printf("parity float32 greedy %s: %td of %zu tokens identical, smallest gap %.4f\n",
                prompt["name"].get<std::string>().c_str(), differs - want.begin(), want.size(),
                prompt["min_logit_gap"].get<double>());
    EXPECT_EQ(differs, want.end()) << prompt["name"];
  }
}

double Quantity(const AttentionBucket& bucket, const std::string& name) {
  if (name == "entropy") return bucket.entropy;
  if (name == "normalized_entropy") return bucket.normalized_entropy;
  if (name == "effective_context") return bucket.effective_context;
  return bucket.max_probability;
}

// Every [layer][head][bucket] mean of attention.json.gz; effective_context, which grows with n,
// relatively.
void ExpectAttention(const AttentionReport& report, const Json& golden, const char* policy) {
  for (const char* name :
       {"entropy", "normalized_entropy", "effective_context", "max_probability"}) {
    const Json& means = golden["policies"][policy]["mean"][name];
    ASSERT_EQ(report.layers.size(), means.size());
    double largest = 0;
    for (size_t layer = 0; layer < means.size(); ++layer) {
      const std::vector<HeadReport>& heads = report.layers[layer].heads;
      ASSERT_EQ(heads.size(), means[layer].size());
      for (size_t head = 0; head < heads.size(); ++head) {
        const std::vector<AttentionBucket>& buckets = heads[head].buckets;
        ASSERT_EQ(buckets.size(), means[layer][head].size());
        for (size_t b = 0; b < buckets.size(); ++b) {
          ASSERT_EQ(buckets[b].rows, golden["rows"][b].get<int64_t>());
          const double want = means[layer][head][b];
          double delta = std::abs(Quantity(buckets[b], name) - want);
          if (std::string(name) == "effective_context") delta /= want;
          if (!(delta <= largest)) largest = delta;
        }
      }
    }
    std::printf("parity float32 %s %s: max |delta| %.2e over layers, heads and buckets\n", policy,
                name, largest);
    EXPECT_LE(largest, kStatsTolerance) << policy << " " << name;
  }
}

void ExpectAttentionUnderPolicy(ModelRunner& runner, const char* policy) {
  const Json golden = ReadGolden("attention.json.gz");
  const auto tokens = golden["token_ids"].get<std::vector<int32_t>>();
  const Pass pass = RunText(runner, tokens, /*stats=*/true);
  const Distance distance = LogprobDistance(pass.logprobs, golden["policies"][policy]["logprobs"]);
  std::printf("parity float32 %s logprobs: %zu tokens, |delta| max %.2e mean %.2e\n", policy,
              tokens.size(), distance.max, distance.mean);
  EXPECT_LE(distance.max, kLogprobTolerance);
  ExpectAttention(*pass.report, golden, policy);
}

class Float32ParityTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    runner_ = MakeRunner(kernels::DType::kFloat32, "softmax").release();
  }
  static void TearDownTestSuite() { delete runner_; }
  static inline ModelRunner* runner_ = nullptr;
};

TEST_F(Float32ParityTest, Logprobs) {
  const Json golden = ReadGolden("logprobs.json.gz");
  for (const Json& text : golden["texts"]) {
    const auto start = std::chrono::steady_clock::now();
    const auto tokens = text["token_ids"].get<std::vector<int32_t>>();
    const Pass pass = RunText(*runner_, tokens, /*stats=*/false);
    const Distance distance = LogprobDistance(pass.logprobs, text["logprobs"]);
    const double top = TopDistance(pass, text);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf(
        "parity float32 %s: %zu tokens, |delta logprob| max %.2e mean %.2e, of the last "
        "token's top 20 %.2e, %.1f s\n",
        text["name"].get<std::string>().c_str(), tokens.size(), distance.max, distance.mean, top,
        seconds.count());
    EXPECT_LE(distance.max, kLogprobTolerance) << text["name"];
    EXPECT_LE(top, kLogprobTolerance) << text["name"];
  }
}

TEST_F(Float32ParityTest, Greedy) { ExpectGreedy(*runner_); }

TEST_F(Float32ParityTest, AttentionSoftmax) { ExpectAttentionUnderPolicy(*runner_, "softmax"); }

TEST_F(Float32ParityTest, AttentionSsmax) {
  const auto runner = MakeRunner(kernels::DType::kFloat32, "ssmax:auto");
  ExpectAttentionUnderPolicy(*runner, "ssmax");
}

// transformers' own distance from itself, when it computes in bfloat16, is the bound.
TEST(BFloat16ParityTest, IsNearerToFloat32ThanTransformersIs) {
  const auto runner = MakeRunner(kernels::DType::kBFloat16, "softmax");
  const Json golden = ReadGolden("logprobs.json.gz");
  const Json yardstick = ReadGolden("bf16.json");
  int compared = 0;
  for (const Json& bound : yardstick["texts"]) {
    for (const Json& text : golden["texts"]) {
      if (text["name"] != bound["name"]) continue;
      const auto tokens = text["token_ids"].get<std::vector<int32_t>>();
      const Pass pass = RunText(*runner, tokens, /*stats=*/false);
      const Distance distance = LogprobDistance(pass.logprobs, text["logprobs"]);
      const double max_bound = bound["abs_delta_bf16"]["max"];
      const double mean_bound = bound["abs_delta_bf16"]["mean"];
      std::printf(
          "parity bfloat16 %s: |delta logprob| max %.4f mean %.4f (transformers in "
          "bfloat16: %.4f, %.4f)\n",
          text["name"].get<std::string>().c_str(), distance.max, distance.mean, max_bound,
          mean_bound);
      EXPECT_LE(distance.max, max_bound) << text["name"];
      EXPECT_LE(distance.mean, mean_bound) << text["name"];
      ++compared;
    }
  }
  EXPECT_GT(compared, 3);
}

}  // namespace
}  // namespace acuity::engine
