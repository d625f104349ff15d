#include "engine/model/model_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "tests/engine/model/batch_maker.h"
#include "tests/engine/model/tiny_model.h"

// AddressSanitizer would end the program where TooMuchMemoryIsResourceExhausted asks for it.
extern "C" const char* __asan_default_options();
const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace acuity::engine {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kStride = 64;     // block table entries
constexpr uint64_t kSeed = 20;  // of the weights

kernels::ParallelFor Pool() {
  static kernels::ThreadPool* const pool = new kernels::ThreadPool(3);
  return pool->parallel_for();
}

ModelOptions Float32Options() {
  ModelOptions options;
  options.weight_dtype = kernels::DType::kFloat32;
  options.kv_dtype = kernels::DType::kFloat32;
  options.block_size = 8;
  options.kv_memory_bytes = 8 << 20;
  options.max_batch_tokens = 256;
  options.max_logit_rows = 256;
  return options;
}

std::unique_ptr<ModelRunner> MakeRunner(const TinyCheckpoint& checkpoint,
                                        ModelOptions options = Float32Options()) {
  auto runner = ModelRunner::Create(checkpoint, checkpoint.spec(), options, Pool());
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

std::vector<int32_t> Tokens(int count, int seed, int vocab) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * i * 7 + i * 13 + seed * 31) % vocab);
  return tokens;
}

// Pages in an order that has nothing to do with their content's. `count` is not a multiple of 7.
std::vector<int32_t> ScatteredBlocks(int count, int first) {
  std::vector<int32_t> blocks(count);
  for (int i = 0; i < count; ++i) blocks[i] = first + (i * 7 + 3) % count;
  return blocks;
}

struct Result {
  std::vector<float> logits;
  std::vector<kernels::RowSums> sums;
};

Result Execute(ModelRunner& runner, const Batch& batch) {
  StepOutput output;
  const absl::Status status = runner.Step(batch, &output);
  EXPECT_TRUE(status.ok()) << status;
  return {{output.logits.begin(), output.logits.end()}, {output.sums.begin(), output.sums.end()}};
}

// Feeds `tokens` in chunks of `chunk`; the logits of every row.
std::vector<float> RunInChunks(ModelRunner& runner, const std::vector<int32_t>& tokens, int chunk,
                               const std::vector<int32_t>& blocks) {
  std::vector<float> logits;
  Batch batch;
  for (int begin = 0; begin < static_cast<int>(tokens.size()); begin += chunk) {
    const int count = std::min<int>(chunk, static_cast<int>(tokens.size()) - begin);
    ClearBatch(kStride, &batch);
    AddSequence(std::span(tokens).subspan(begin, count), begin, blocks, runner.options().block_size,
                LogitRows::kAll, &batch);
    const Result result = Execute(runner, batch);
    logits.insert(logits.end(), result.logits.begin(), result.logits.end());
  }
  return logits;
}

double LargestDifference(const std::vector<float>& logits, const ReferenceOutput& reference) {
  double largest = 0;
  const size_t vocab = reference.logits[0].size();
  EXPECT_EQ(logits.size(), reference.logits.size() * vocab);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double delta = std::abs(logits[i] - reference.logits[i / vocab][i % vocab]);
    if (!(delta <= largest)) largest = delta;  // NaN sticks out
  }
  return largest;
}

void ExpectMatchesReference(const ModelSpec& spec, double tolerance = 2e-4,
                            ModelOptions options = Float32Options()) {
  TinyCheckpoint checkpoint(spec, kSeed);
  if (options.weight_dtype == kernels::DType::kBFloat16) checkpoint.RoundMatrices();
  const auto runner = MakeRunner(checkpoint, options);
  const std::vector<int32_t> tokens = Tokens(90, 1, spec.vocab_size);
  const std::vector<float> logits = RunInChunks(*runner, tokens, 90, ScatteredBlocks(12, 5));
  const ReferenceOutput reference = ReferenceForward(checkpoint, spec, tokens, options.kv_dtype);
  EXPECT_LE(LargestDifference(logits, reference), tolerance);
}

TEST(ModelRunnerTest, MatchesDoublePrecision) { ExpectMatchesReference(TinySpec()); }

TEST(ModelRunnerTest, MatchesDoublePrecisionWithUntiedOutput) {
  ModelSpec spec = TinySpec();
  spec.tied_embeddings = false;
  ExpectMatchesReference(spec);
}

TEST(ModelRunnerTest, MatchesDoublePrecisionWithHalfRotaryFactorsAndSoftcap) {
  ModelSpec spec = TinySpec();
  spec.ropes[0].style = kernels::RopeStyle::kHalf;
  spec.ropes[0].factors = {1, 1, 1, 1.5f, 2, 4, 8, 8};
  spec.attention_softcap = 2;
  ExpectMatchesReference(spec);
}

TEST(ModelRunnerTest, MatchesDoublePrecisionWithPartialRotaryAndOneKvHead) {
  ModelSpec spec = TinySpec();
  spec.ropes[0].rotary_dim = 8;
  spec.num_kv_heads = 1;
  ExpectMatchesReference(spec);
}

TEST(ModelRunnerTest, BFloat16WeightsMatchDoublePrecision) {
  ModelOptions options = Float32Options();
  options.weight_dtype = kernels::DType::kBFloat16;
  ExpectMatchesReference(TinySpec(), 2e-4, options);
}

// A K or V that stands almost halfway between two bfloat16 may round the other way: wider than the
// others.
TEST(ModelRunnerTest, BFloat16PagesMatchDoublePrecision) {
  ModelOptions options = Float32Options();
  options.kv_dtype = kernels::DType::kBFloat16;
  ExpectMatchesReference(TinySpec(), 0.05, options);
}

// The same: such a K or V is sixteen times as rare, and its neighbours as far apart. Without their
// rounding the difference would be 8.
TEST(ModelRunnerTest, EightBitPagesMatchDoublePrecision) {
  ModelOptions options = Float32Options();
  options.kv_dtype = kernels::DType::kFloat8;
  ExpectMatchesReference(TinySpec(), 0.2, options);
}

TEST(ModelRunnerTest, CountsWhatEightBitPagesCannotHold) {
  const std::vector<int32_t> tokens = Tokens(50, 2, TinySpec().vocab_size);
  const auto count = [&](kernels::DType kv_dtype, float factor) {
    TinyCheckpoint checkpoint(TinySpec(), kSeed);
    checkpoint.Scale("blk.1.attn_v.weight", factor);
    ModelOptions options = Float32Options();
    options.kv_dtype = kv_dtype;
    const auto runner = MakeRunner(checkpoint, options);
    RunInChunks(*runner, tokens, 30, ScatteredBlocks(10, 0));
    return runner->saturated_values();
  };
  EXPECT_EQ(count(kernels::DType::kFloat8, 1), 0);
  EXPECT_EQ(count(kernels::DType::kBFloat16, 1e9f), 0);
  EXPECT_EQ(count(kernels::DType::kFloat8, 1e9f), 50 * 2 * 16);  // a layer's values, all of them
}

TEST(ModelRunnerTest, ChunksOfAPromptGiveTheSameBits) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const std::vector<int32_t> tokens = Tokens(200, 2, spec.vocab_size);
  const std::vector<float> whole = RunInChunks(*runner, tokens, 200, ScatteredBlocks(25, 0));
  for (const int chunk : {1, 3, 64, 130}) {
    const std::vector<float> logits = RunInChunks(*runner, tokens, chunk, ScatteredBlocks(25, 40));
    EXPECT_TRUE(logits == whole) << "chunks of " << chunk;
  }
}

TEST(ModelRunnerTest, NeighboursDoNotChangeABit) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const int lengths[] = {1, 30, 77, 2};
  std::vector<std::vector<int32_t>> tokens, blocks;
  std::vector<float> alone;
  for (int i = 0; i < 4; ++i) {
    tokens.push_back(Tokens(lengths[i], i, spec.vocab_size));
    blocks.push_back(ScatteredBlocks(10, 10 * i));
    const std::vector<float> logits = RunInChunks(*runner, tokens[i], lengths[i], blocks[i]);
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  Batch batch;
  ClearBatch(kStride, &batch);
  for (int i = 0; i < 4; ++i) {
    AddSequence(tokens[i], 0, blocks[i], 8, LogitRows::kAll, &batch);
  }
  EXPECT_TRUE(Execute(*runner, batch).logits == alone);

  // Decoding steps and chunks in one batch, too.
  const std::vector<int32_t> more = Tokens(9, 5, spec.vocab_size);
  ClearBatch(kStride, &batch);
  AddSequence(std::span(more).first(1), 77, blocks[2], 8, LogitRows::kLast, &batch);
  const std::vector<float> decode_alone = Execute(*runner, batch).logits;
  AddSequence(more, 30, blocks[1], 8, LogitRows::kLast, &batch);
  const std::vector<float> together = Execute(*runner, batch).logits;
  EXPECT_TRUE(std::equal(decode_alone.begin(), decode_alone.end(), together.begin()));
}

TEST(ModelRunnerTest, ThreadsDoNotChangeABit) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const auto serial = ModelRunner::Create(checkpoint, spec, Float32Options(), {});
  ASSERT_TRUE(serial.ok());
  const std::vector<int32_t> tokens = Tokens(100, 3, spec.vocab_size);
  EXPECT_TRUE(RunInChunks(*runner, tokens, 100, ScatteredBlocks(13, 0)) ==
              RunInChunks(**serial, tokens, 100, ScatteredBlocks(13, 0)));
}

TEST(ModelRunnerTest, LogitRowsAreASubset) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const std::vector<int32_t> tokens = Tokens(40, 4, spec.vocab_size);
  const std::vector<int32_t> blocks = ScatteredBlocks(5, 0);
  const std::vector<float> all = RunInChunks(*runner, tokens, 40, blocks);
  Batch batch;
  ClearBatch(kStride, &batch);
  AddSequence(tokens, 0, blocks, 8, LogitRows::kNone, &batch);
  EXPECT_THAT(Execute(*runner, batch).logits, IsEmpty());
  batch.logit_rows = {0, 2, 17, 39};
  const std::vector<float> some = Execute(*runner, batch).logits;
  ASSERT_EQ(some.size(), 4u * spec.vocab_size);
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    EXPECT_TRUE(std::equal(some.begin() + i * spec.vocab_size,
                           some.begin() + (i + 1) * spec.vocab_size,
                           all.begin() + batch.logit_rows[i] * spec.vocab_size));
  }
}

TEST(ModelRunnerTest, StatsMatchDoublePrecision) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const std::vector<int32_t> tokens = Tokens(60, 6, spec.vocab_size);
  const ReferenceOutput reference =
      ReferenceForward(checkpoint, spec, tokens, kernels::DType::kFloat32);
  Batch batch;
  ClearBatch(kStride, &batch);
  // Without logits: the statistics are of every row all the same.
  AddSequence(tokens, 0, ScatteredBlocks(8, 0), 8, LogitRows::kNone, &batch);
  EXPECT_THAT(Execute(*runner, batch).sums, IsEmpty());
  MeasureEachRow(spec, &batch);
  const Result result = Execute(*runner, batch);
  ASSERT_EQ(result.sums.size(), tokens.size() * spec.num_layers * spec.num_heads);
  size_t i = 0;
  for (size_t row = 0; row < tokens.size(); ++row) {
    for (int layer = 0; layer < spec.num_layers; ++layer) {
      for (int head = 0; head < spec.num_heads; ++head, ++i) {
        const double entropy = reference.entropy[layer][row][head];
        const auto near = [](int64_t sum, double unit, double expected, double allowed) {
          EXPECT_NEAR(static_cast<double>(sum) * unit, expected, allowed);
        };
        ASSERT_EQ(result.sums[i].rows, 1);
        near(result.sums[i].entropy, kernels::kRowSumUnit, entropy, 1e-4);
        near(result.sums[i].effective, kernels::kEffectiveUnit, std::exp(entropy), 1e-2);
        near(result.sums[i].max_probability, kernels::kRowSumUnit,
             reference.max_probability[layer][row][head], 1e-4);
      }
    }
  }
}

// Adds up sums of [parts, num_layers, width].
std::vector<kernels::RowSums> Total(const std::vector<kernels::RowSums>& parts, size_t size) {
  std::vector<kernels::RowSums> total(size);
  for (size_t i = 0; i < parts.size(); ++i) {
    kernels::RowSums& to = total[i % size];
    to.rows += parts[i].rows;
    to.entropy += parts[i].entropy;
    to.normalized += parts[i].normalized;
    to.effective += parts[i].effective;
    to.fraction += parts[i].fraction;
    to.max_probability += parts[i].max_probability;
  }
  return total;
}

TEST(ModelRunnerTest, SumsAreTheSameBitsInAnyChunks) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const std::vector<int32_t> tokens = Tokens(60, 6, spec.vocab_size);
  for (const bool by_head : {false, true}) {
    std::vector<kernels::RowSums> expected;
    for (const int chunk : {60, 1, 7, 33}) {
      std::vector<kernels::RowSums> sums;
      for (int begin = 0; begin < 60; begin += chunk) {
        Batch batch;
        ClearBatch(kStride, &batch);
        AddSequence(std::span(tokens).subspan(begin, std::min(chunk, 60 - begin)), begin,
                    ScatteredBlocks(8, 0), 8, LogitRows::kNone, &batch);
        MeasureSequences(spec, by_head, &batch);
        const Result result = Execute(*runner, batch);
        sums.insert(sums.end(), result.sums.begin(), result.sums.end());
      }
      sums = Total(sums, spec.num_layers * (by_head ? spec.num_heads : 1));
      EXPECT_EQ(sums[0].rows, 60 * (by_head ? 1 : spec.num_heads));
      if (expected.empty()) expected = sums;
      EXPECT_TRUE(sums == expected) << "chunks of " << chunk;
    }
  }
}

TEST(ModelRunnerTest, StatsDoNotChangeTheLogits) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const std::vector<int32_t> tokens = Tokens(60, 7, spec.vocab_size);
  Batch batch;
  ClearBatch(kStride, &batch);
  AddSequence(tokens, 0, ScatteredBlocks(8, 0), 8, LogitRows::kAll, &batch);
  const std::vector<float> without = Execute(*runner, batch).logits;
  MeasureSequences(spec, false, &batch);
  EXPECT_TRUE(Execute(*runner, batch).logits == without);
}

TEST(ModelRunnerTest, EmptyBatch) {
  const TinyCheckpoint checkpoint(TinySpec(), kSeed);
  const auto runner = MakeRunner(checkpoint);
  Batch batch;
  ClearBatch(kStride, &batch);
  const Result result = Execute(*runner, batch);
  EXPECT_THAT(result.logits, IsEmpty());
  EXPECT_THAT(result.sums, IsEmpty());
}

TEST(ModelRunnerTest, ZeroedBlocksForgetAPoisonedSequence) {
  const ModelSpec spec = TinySpec();
  TinyCheckpoint checkpoint(spec, kSeed);
  const auto runner = MakeRunner(checkpoint);
  const std::vector<int32_t> tokens = Tokens(16, 8, spec.vocab_size);
  const std::vector<int32_t> blocks = {3, 4}, other = {6, 7};
  RunInChunks(*runner, tokens, 16, blocks);
  RunInChunks(*runner, tokens, 16, other);
  const std::vector<int32_t> zeroed = {4};
  runner->ZeroBlocks(zeroed);
  // A row that reads a zeroed page sees different keys; one whose pages were left alone does not.
  Batch batch;
  const std::vector<int32_t> next = {5};
  const std::vector<int32_t> table = {3, 4, 5}, other_table = {6, 7, 8};
  ClearBatch(kStride, &batch);
  AddSequence(next, 16, table, 8, LogitRows::kLast, &batch);
  const std::vector<float> damaged = Execute(*runner, batch).logits;
  ClearBatch(kStride, &batch);
  AddSequence(next, 16, other_table, 8, LogitRows::kLast, &batch);
  const std::vector<float> sound = Execute(*runner, batch).logits;
  EXPECT_FALSE(damaged == sound);
  const std::vector<float> again = RunInChunks(*runner, tokens, 16, blocks);
  EXPECT_THAT(again, ElementsAreArray(RunInChunks(*runner, tokens, 16, other)));
}

TEST(ModelRunnerTest, SaysWhatItHolds) {
  const ModelSpec spec = TinySpec();
  const TinyCheckpoint checkpoint(spec, kSeed);
  ModelOptions options = Float32Options();
  options.kv_dtype = kernels::DType::kBFloat16;
  options.kv_memory_bytes = 1'000'000;
  const auto runner = MakeRunner(checkpoint, options);
  const int64_t bytes_per_block = 2 * 5 * 2 * 8 * 16 * 2;  // K and V, layers, heads, slots, dim
  EXPECT_EQ(runner->bytes_per_block(), bytes_per_block);
  EXPECT_EQ(runner->num_blocks(), 1'000'000 / bytes_per_block);
  EXPECT_GE(runner->weight_bytes(), 67 * 40 * 4);
  EXPECT_EQ(runner->spec().num_layers, 5);
  EXPECT_EQ(runner->options().block_size, 8);
  options.kv_dtype = kernels::DType::kFloat8;
  EXPECT_EQ(MakeRunner(checkpoint, options)->bytes_per_block(), bytes_per_block / 2);
}

absl::Status CreateStatus(const TinyCheckpoint& checkpoint, const ModelSpec& spec,
                          const ModelOptions& options) {
  return ModelRunner::Create(checkpoint, spec, options, Pool()).status();
}

TEST(ModelRunnerTest, RefusesWhatItCannotServe) {
  const TinyCheckpoint checkpoint(TinySpec(), kSeed);
  const ModelOptions options = Float32Options();
  const auto expect = [&](const ModelSpec& spec, const ModelOptions& with, const char* text) {
    const absl::Status status = CreateStatus(checkpoint, spec, with);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  ModelOptions bad = options;
  bad.kv_memory_bytes = 100;
  expect(TinySpec(), bad, "kv_memory_bytes is 100; one block of 8 tokens takes 10240");
  bad.kv_memory_bytes = -1;
  expect(TinySpec(), bad, "kv_memory_bytes is -1");
  bad = options;
  bad.block_size = 12;
  expect(TinySpec(), bad, "block_size");
  bad.block_size = 0;
  expect(TinySpec(), bad, "block_size is 0");
  bad = options;
  bad.max_batch_tokens = (1 << 25) / 6 + 1;
  expect(TinySpec(), bad, "max_batch_tokens is 5592406; at most 5592405 with 6 heads");
  ModelSpec spec = TinySpec();
  spec.head_dim = 12;
  spec.ropes[0].rotary_dim = 12;
  expect(spec, options, "head_dim");
  spec = TinySpec();
  spec.layers.pop_back();
  expect(spec, options, "4 layers");
  spec = TinySpec();
  spec.ropes[0].factors = {1, 2};
  expect(spec, options, "rope factors has 2");
  spec = TinySpec();
  spec.layers[1].policy.s.pop_back();
  expect(spec, options, "policy of layer 1");
  spec = TinySpec();
  spec.ffn_size = 53;
  expect(spec, options, "blk.0.ffn_gate.weight is [52, 40], not [53, 40]");
}

TEST(ModelRunnerTest, NamesTheTensorThatIsMissingOrUnreadable) {
  TinyCheckpoint missing(TinySpec(), kSeed);
  missing.Remove("blk.3.attn_v.weight");
  absl::Status status = CreateStatus(missing, TinySpec(), Float32Options());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("blk.3.attn_v.weight is missing"));
  TinyCheckpoint damaged(TinySpec(), kSeed);
  damaged.Damage("blk.2.ffn_up.weight");
  status = CreateStatus(damaged, TinySpec(), Float32Options());
  EXPECT_EQ(status, absl::InvalidArgumentError("damaged: blk.2.ffn_up.weight"));
}

TEST(ModelRunnerTest, TooMuchMemoryIsResourceExhausted) {
  const TinyCheckpoint checkpoint(TinySpec(), kSeed);
  ModelOptions options = Float32Options();
  options.kv_memory_bytes = std::numeric_limits<int64_t>::max() / 2;
  const absl::Status status = CreateStatus(checkpoint, TinySpec(), options);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("kv_memory_bytes"));
}

TEST(ModelRunnerTest, ABadBatchIsInternal) {
  const TinyCheckpoint checkpoint(TinySpec(), kSeed);
  const auto runner = MakeRunner(checkpoint);
  Batch good;
  ClearBatch(kStride, &good);
  AddSequence(Tokens(9, 1, 67), 0, ScatteredBlocks(2, 0), 8, LogitRows::kLast, &good);
  const auto expect = [&](auto&& spoil) {
    Batch batch = good;
    spoil(batch);
    StepOutput output;
    EXPECT_EQ(runner->Step(batch, &output).code(), absl::StatusCode::kInternal);
  };
  expect([](Batch& b) { b.tokens[3] = 67; });
  expect([](Batch& b) { b.tokens[3] = -1; });
  expect([](Batch& b) { b.slots[3] = int64_t{1} << 40; });
  expect([](Batch& b) { b.positions.pop_back(); });
  expect([](Batch& b) { b.qo_indptr.back() = 8; });
  expect([](Batch& b) { b.kv_len[0] = 8; });
  expect([](Batch& b) { b.kv_len[0] = kStride * 8 + 1; });
  expect([](Batch& b) { b.block_tables[0] = 1 << 30; });
  expect([](Batch& b) { b.logit_rows = {3, 3}; });
  expect([](Batch& b) { b.logit_rows = {9}; });
  expect([](Batch& b) { b.block_table_stride = 3; });
  expect([](Batch& b) { b.measured = {{0, 2, 1}}; });            // n 1 and 2
  expect([](Batch& b) { b.measured = {{3, 4, 3}}; });            // whose n is 4
  expect([](Batch& b) { b.measured = {{3, 3, 4}}; });            // none
  expect([](Batch& b) { b.measured = {{8, 10, 9}}; });           // beyond the batch
  expect([](Batch& b) { b.measured = {{3, 4, 4, false, 1}}; });  // a hole before its sums
  expect([](Batch& b) {
    b.measured = {{3, 5, 4}, {4, 5, 5, false, 5}};  // one row twice
  });
  EXPECT_EQ(Execute(*runner, good).logits.size(), 67u);  // and the runner is fit for use
}

}  // namespace
}  // namespace acuity::engine
