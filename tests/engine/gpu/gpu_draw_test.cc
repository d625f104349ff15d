// Tokens that the GPU's decoder draws itself: those that engine/sample draws from the logits which
// the same step gives when it is asked for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "engine/sample/sampler.h"
#include "tests/engine/gpu/gpu_fixture.h"

namespace acuity::engine {
namespace {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kVocab = 101;

// One of each kind, and all at once.
kernels::SampleRow ParamsOf(int row) {
  const kernels::SampleRow kinds[] = {
      {.temperature = 0},
      {.temperature = 1},
      {.temperature = 0.7f, .top_k = 3},
      {.temperature = 1.5f, .top_p = 0.6f},
      {.temperature = 2, .min_p = 0.3f},
      {.temperature = 0.9f, .top_k = 20, .top_p = 0.9f, .min_p = 0.05f},
  };
  kernels::SampleRow params = kinds[static_cast<size_t>(row) % std::size(kinds)];
  params.seed = 100 + static_cast<uint64_t>(row);
  params.position = 5 + 2 * row;
  return params;
}

// `batch`, whose logits are all wanted, with draws from the rows that `drawn` picks.
template <typename Pick>
Batch DrawFrom(Batch batch, Pick drawn) {
  const std::vector<int32_t> rows = std::exchange(batch.logit_rows, {});
  for (const int32_t row : rows) {
    if (drawn(row)) {
      batch.draws.push_back({row, ParamsOf(row)});
    } else {
      batch.logit_rows.push_back(row);
    }
  }
  return batch;
}

std::span<const float> RowOf(const std::vector<float>& logits, size_t row) {
  return std::span(logits).subspan(row * kVocab, kVocab);
}

int32_t OnTheHost(std::span<const float> logits, const kernels::SampleRow& row) {
  Sampler sampler(kVocab);
  const SamplingParams params = {
      .temperature = row.temperature, .top_k = row.top_k, .top_p = row.top_p, .min_p = row.min_p};
  const auto sampled = sampler.Sample(logits, params, {.seed = row.seed, .position = row.position});
  EXPECT_TRUE(sampled.ok()) << sampled.status();
  return sampled.ok() ? sampled->token : -1;
}

// `all` has the logits of all of the batch's logit rows and draws, in the batch's order.
void ExpectSameAsHost(const Batch& batch, const Result& result, const Result& all) {
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.tokens.size(), batch.draws.size());
  ASSERT_EQ(result.logits.size(), batch.logit_rows.size() * kVocab);
  size_t drawn = 0, wanted = 0;
  while (drawn + wanted < batch.draws.size() + batch.logit_rows.size()) {
    const auto logits = RowOf(all.logits, drawn + wanted);
    if (wanted == batch.logit_rows.size() ||
        (drawn < batch.draws.size() && batch.draws[drawn].row < batch.logit_rows[wanted])) {
      EXPECT_EQ(result.tokens[drawn], OnTheHost(logits, batch.draws[drawn].sample)) << drawn;
      ++drawn;
    } else {
      EXPECT_TRUE(std::ranges::equal(RowOf(result.logits, wanted), logits)) << wanted;
      ++wanted;
    }
  }
}

class GpuDrawTest : public ::testing::Test {
 protected:
  // Prompts of three sequences, and what then decodes: the logits of each row are wanted.
  Batch Prompts(int first, int size) const {
    Batch batch;
    ClearBatch(kStride, &batch);
    for (int i = 0; i < 3; ++i) {
      AddSequence(std::span(prompts_[i]).subspan(first, size), first, BlocksOf(i), kBlockSize,
                  LogitRows::kAll, &batch);
    }
    return batch;
  }
  static Batch Decoding(int step) {
    return DecodeBatch({0, 1, 2}, {10 + step, 10 + step, 10 + step}, step);
  }

  const std::vector<int32_t> prompts_[3] = {Tokens(10, 0), Tokens(10, 1), Tokens(10, 2)};
  const TinyCheckpoint checkpoint_{SmallLlama(), kSeed};
  const EmulatedGpu gpu_ = MakeGpu(checkpoint_);
};

TEST_F(GpuDrawTest, APromptsRows) {
  ASSERT_TRUE(gpu_.runner->draws());
  const Result all = Execute(*gpu_.runner, Prompts(0, 10));
  for (const int modulus : {1, 2, 3, 7}) {  // 1: all rows, where none need be gathered
    const Batch batch = DrawFrom(Prompts(0, 10), [&](int row) { return row % modulus == 0; });
    ExpectSameAsHost(batch, Execute(*gpu_.runner, batch), all);
  }
  // With hidden states, which lie behind both.
  Batch batch = DrawFrom(Prompts(0, 10), [](int row) { return row % 2 == 0; });
  batch.logit_rows = {1, 5};
  batch.hidden_rows = {3, 7, 29};
  const Result mixed = Execute(*gpu_.runner, batch);
  Batch states = Prompts(0, 10);
  states.logit_rows = {};
  states.hidden_rows = batch.hidden_rows;
  EXPECT_TRUE(mixed.hidden == Execute(*gpu_.runner, states).hidden);
  EXPECT_TRUE(std::ranges::equal(RowOf(mixed.logits, 1), RowOf(all.logits, 5)));
  ASSERT_EQ(mixed.tokens.size(), 15u);
  EXPECT_EQ(mixed.tokens[14], OnTheHost(RowOf(all.logits, 28), ParamsOf(28)));
}

// Every subset of three rows, in a bucket of four: the first step of the bucket as it is, the
// second captured, all others replayed, whatever they want of which row.
std::vector<Result> DecodeSubsets(ModelRunner& runner, std::vector<Batch>* batches) {
  std::vector<Result> results;
  for (int subset = 0; subset < 8; ++subset) {
    batches->push_back(DrawFrom(DecodeBatch({0, 1, 2}, {10, 10, 10}, 1),
                                [&](int row) { return (subset >> row & 1) != 0; }));
    results.push_back(Execute(runner, batches->back()));
  }
  return results;
}

TEST_F(GpuDrawTest, ABucketServesAnyMixture) {
  Execute(*gpu_.runner, Prompts(0, 10));
  std::vector<Batch> batches;
  const std::vector<Result> results = DecodeSubsets(*gpu_.runner, &batches);
  for (size_t i = 0; i < results.size(); ++i) {
    ExpectSameAsHost(batches[i], results[i], results[0]);
  }
  EXPECT_EQ(gpu_.control->captures, 1);
  EXPECT_EQ(gpu_.control->replays, 7);

  const EmulatedGpu eager = MakeGpu(checkpoint_);
  eager.control->refuse_captures = true;
  Execute(*eager.runner, Prompts(0, 10));
  batches.clear();
  const std::vector<Result> others = DecodeSubsets(*eager.runner, &batches);
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_TRUE(results[i].logits == others[i].logits) << i;
    EXPECT_EQ(results[i].tokens, others[i].tokens) << i;
  }
  EXPECT_EQ(eager.control->replays, 0);
}

TEST_F(GpuDrawTest, ReadsBackTokensAndNoMore) {
  Execute(*gpu_.runner, Prompts(0, 10));
  const auto read = [&](int step, auto drawn) {
    const int copies = gpu_.control->copies_to_host;
    const int64_t bytes = gpu_.control->bytes_to_host;
    const Result result = Execute(*gpu_.runner, DrawFrom(Decoding(step), drawn));
    EXPECT_TRUE(result.status.ok()) << result.status;
    EXPECT_THAT(result.tokens, Each(Ge(0)));
    return std::pair(gpu_.control->copies_to_host - copies, gpu_.control->bytes_to_host - bytes);
  };
  constexpr int64_t kToken = 4, kRow = 4 * kVocab;
  for (int i = 0; i < Device::kMarks; ++i) read(0, [](int) { return true; });
  const int allocations = gpu_.control->allocations;
  EXPECT_EQ(read(1, [](int) { return true; }), std::pair(1, 3 * kToken));
  EXPECT_EQ(read(2, [](int row) { return row < 2; }), std::pair(2, 2 * kToken + kRow));
  EXPECT_EQ(read(3, [](int row) { return row == 0; }), std::pair(2, kToken + 2 * kRow));
  // Two rows that are no neighbours; the token of the row between comes with the one before.
  EXPECT_EQ(read(4, [](int row) { return row == 1; }), std::pair(3, 2 * kToken + 2 * kRow));
  EXPECT_EQ(read(5, [](int) { return false; }), std::pair(1, 3 * kRow));
  EXPECT_EQ(gpu_.control->allocations, allocations);
}

TEST_F(GpuDrawTest, BadDrawsAreRefused) {
  const auto refused = [&](ModelRunner& runner, std::vector<Draw> draws) {
    Batch batch = Prompts(0, 10);
    batch.logit_rows = {4};
    batch.hidden_rows = {6};
    batch.draws = std::move(draws);
    const Result result = Execute(runner, batch);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(result.tokens, IsEmpty());
    return std::string(result.status.message());
  };
  EXPECT_THAT(refused(*gpu_.runner, {{3, {}}, {3, {}}}), HasSubstr("not of ascending rows"));
  EXPECT_THAT(refused(*gpu_.runner, {{-1, {}}}), HasSubstr("not of ascending rows"));
  EXPECT_THAT(refused(*gpu_.runner, {{30, {}}}), HasSubstr("not of ascending rows"));
  EXPECT_THAT(refused(*gpu_.runner, {{4, {}}}), HasSubstr("both in draws and"));
  EXPECT_THAT(refused(*gpu_.runner, {{6, {}}}), HasSubstr("both in draws and"));
  EXPECT_THAT(refused(*gpu_.runner, std::vector<Draw>(48)), HasSubstr("max_logit_rows"));
  const auto cpu = MakeCpu(checkpoint_);
  EXPECT_FALSE(cpu->draws());
  EXPECT_THAT(refused(*cpu, {{3, {}}}), HasSubstr("a runner that does not draw"));
}

}  // namespace
}  // namespace acuity::engine
