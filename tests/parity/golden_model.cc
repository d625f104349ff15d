#include "tests/parity/golden_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model_runner.h"
#include "tests/engine/model/batch_maker.h"
#include "tests/parity/golden_file.h"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;
using Logits = std::vector<std::vector<float>>;  // [rows][vocab]

constexpr double kTolerance = 2e-4;  // of a log-probability
constexpr int kBlockSize = 8;
constexpr int kStride = 16;  // blocks of a sequence

std::unique_ptr<ModelRunner> MakeRunner(const Checkpoint& checkpoint) {
  ModelOptions options;
  options.weight_dtype = options.kv_dtype = kernels::DType::kFloat32;
  options.block_size = kBlockSize;
  options.kv_memory_bytes = 4 << 20;
  options.max_batch_tokens = options.max_logit_rows = kBlockSize * kStride;
  auto runner = ModelRunner::Create(checkpoint, checkpoint.spec(), options, {});
  EXPECT_TRUE(runner.ok()) << runner.status();
  return runner.ok() ? *std::move(runner) : nullptr;
}

// `tokens` at positions first, first + 1, ... of the only sequence, which want their logits.
Batch MakeBatch(std::span<const int32_t> tokens, int first) {
  std::vector<int32_t> blocks(kStride);
  std::iota(blocks.begin(), blocks.end(), 1);
  Batch batch;
  ClearBatch(kStride, &batch);
  AddSequence(tokens, first, blocks, kBlockSize, LogitRows::kAll, &batch);
  return batch;
}

// The logits of `tokens`, which stand at positions first, first + 1, ... of the only sequence.
Logits Step(ModelRunner& runner, std::span<const int32_t> tokens, int first) {
  const Batch batch = MakeBatch(tokens, first);
  StepOutput output;
  const absl::Status status = runner.Step(batch, &output);
  EXPECT_TRUE(status.ok()) << status;
  const size_t vocab = static_cast<size_t>(runner.spec().vocab_size);
  Logits logits;
  for (size_t row = 0; row < output.logits.size() / vocab; ++row) {
    const auto begin = output.logits.begin() + static_cast<int64_t>(row * vocab);
    logits.emplace_back(begin, begin + static_cast<int64_t>(vocab));
  }
  return logits;
}

int32_t Likeliest(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double LogSum(const std::vector<float>& logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(z - highest);
  return highest + std::log(sum);
}

// The largest difference to the golden's log-probabilities.
double Difference(const Json& row, const Logits& logits) {
  const Json& expected = row["logprobs"];
  EXPECT_EQ(expected.size(), logits.size());
  double largest = 0;
  for (size_t position = 0; position < logits.size(); ++position) {
    const double sum = LogSum(logits[position]);
    for (size_t token = 0; token < logits[position].size(); ++token) {
      const double want = expected[position][token].get<double>() * 1e-5;
      const double difference = std::abs(logits[position][token] - sum - want);
      if (!(difference <= largest)) largest = difference;  // NaN sticks out
    }
  }
  return largest;
}

}  // namespace

const Json& ArchitecturesGolden() {
  static const Json* const golden = new Json(ReadGolden("architectures.json.gz"));
  return *golden;
}

Measured CompareWithGolden(const Json& row, const Checkpoint& checkpoint) {
  const auto runner = MakeRunner(checkpoint);
  if (runner == nullptr) return {};
  const std::vector<int32_t> prompt = row["prompt"];
  const Logits whole = Step(*runner, prompt, 0);
  const double difference = Difference(row, whole);
  std::printf("%s: largest |difference of a log-probability| %.1e\n",
              row["name"].get<std::string>().c_str(), difference);
  EXPECT_LE(difference, kTolerance);

  // Greedy, token by token on the cache.
  const std::vector<int32_t> continuation = row["greedy"];
  std::vector<int32_t> tokens = prompt;
  Logits cached = whole;
  while (tokens.size() < prompt.size() + continuation.size()) {
    const int32_t next = Likeliest(cached.back());
    tokens.push_back(next);
    cached.push_back(Step(*runner, {&next, 1}, static_cast<int>(tokens.size()) - 1).at(0));
  }
  EXPECT_THAT(std::span(tokens).subspan(prompt.size()), testing::ElementsAreArray(continuation));
  // A pass over everything at once, and one in chunks, give the same bits.
  EXPECT_TRUE(Step(*runner, tokens, 0) == cached);
  Logits chunked;
  for (size_t begin = 0; begin < tokens.size(); begin += 13) {
    const size_t count = std::min<size_t>(13, tokens.size() - begin);
    for (std::vector<float>& logits :
         Step(*runner, std::span(tokens).subspan(begin, count), static_cast<int>(begin))) {
      chunked.push_back(std::move(logits));
    }
  }
  EXPECT_TRUE(chunked == cached);
  return {difference, static_cast<int>(prompt.size()), static_cast<int>(continuation.size())};
}

std::vector<std::vector<float>> HiddenStates(const Checkpoint& checkpoint,
                                             std::span<const int32_t> tokens, size_t chunk) {
  const auto runner = MakeRunner(checkpoint);
  if (runner == nullptr) return {};
  std::vector<std::vector<float>> states;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const size_t count = std::min(chunk, tokens.size() - begin);
    Batch batch = MakeBatch(tokens.subspan(begin, count), static_cast<int>(begin));
    batch.logit_rows.clear();
    for (size_t row = 0; row < count; ++row) {
      auto& wanted = (begin + row) % 3 == 0 ? batch.logit_rows : batch.hidden_rows;
      wanted.push_back(static_cast<int32_t>(row));
    }
    StepOutput output;
    const absl::Status status = runner->Step(batch, &output);
    EXPECT_TRUE(status.ok()) << status;
    for (size_t row = 0; row < count; ++row) {
      auto& from = (begin + row) % 3 == 0 ? output.logits : output.hidden;
      const size_t width = static_cast<size_t>((begin + row) % 3 == 0 ? runner->spec().vocab_size
                                                                      : runner->spec().hidden_size);
      states.emplace_back(from.begin(), from.begin() + static_cast<ptrdiff_t>(width));
      from = from.subspan(width);
    }
  }
  return states;
}

}  // namespace acuity::engine
