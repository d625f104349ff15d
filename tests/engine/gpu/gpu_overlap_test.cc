// Steps of the GPU's decoder that are begun while the one before runs: the bits, tokens that only
// the device knows, what is refused, and faults of one that are none of the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/engine/gpu/gpu_fixture.h"

namespace acuity::engine {
namespace {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kPrompt[] = {5, 14, 23};  // tokens of each sequence's prompt

// From each sequence's last row.
void DrawFromLastRows(int step, Batch* batch) {
  batch->logit_rows.clear();
  for (int i = 0; i < batch->num_seqs(); ++i) {
    const int row = batch->qo_indptr[i + 1] - 1;
    const bool greedy = i % 2 == 0;
    batch->draws.push_back(
        {row,
         {.temperature = greedy ? 0 : 1.3f, .seed = static_cast<uint64_t>(i), .position = step}});
  }
}

class GpuOverlapTest : public ::testing::Test {
 protected:
  static Batch Prompts() {
    Batch batch;
    ClearBatch(kStride, &batch);
    for (int i = 0; i < 3; ++i) {
      AddSequence(Tokens(kPrompt[i], i), 0, BlocksOf(i), kBlockSize, LogitRows::kNone, &batch);
    }
    DrawFromLastRows(0, &batch);
    MeasureSequences(SmallLlama(), /*by_head=*/false, &batch);
    return batch;
  }
  // Step 1 and later: one more token of each of `sequences`, whose tokens are `tokens`.
  static Batch Decode(int step, const std::vector<int>& sequences,
                      const std::vector<int32_t>& tokens) {
    std::vector<int> first;
    for (const int sequence : sequences) first.push_back(kPrompt[sequence] + step - 1);
    Batch batch = DecodeBatch(sequences, first, step);
    batch.tokens = tokens;
    DrawFromLastRows(step, &batch);
    if (step % 2 == 0) MeasureSequences(SmallLlama(), /*by_head=*/false, &batch);
    return batch;
  }
  // Who decodes in steps 1, 2, ...: by their shares in the step before, all three at first.
  static std::vector<std::vector<size_t>> Shares() {
    return {{0, 1, 2}, {0, 1, 2}, {1, 2}, {1}, {0}, {0}};
  }
  static std::vector<int> Pick(const std::vector<int>& from, const std::vector<size_t>& shares) {
    std::vector<int> picked;
    for (const size_t share : shares) picked.push_back(from[share]);
    return picked;
  }

  const TinyCheckpoint checkpoint_{SmallLlama(), kSeed};
  const EmulatedGpu gpu_ = MakeGpu(checkpoint_);
};

Result Finish(ModelRunner& runner) {
  StepOutput output;
  Result result;
  result.status = runner.Finish(&output);
  result.sums.assign(output.sums.begin(), output.sums.end());
  result.tokens.assign(output.tokens.begin(), output.tokens.end());
  return result;
}

TEST_F(GpuOverlapTest, TokensGoOnWithoutTheHost) {
  // One after the other, the host carrying the tokens.
  const EmulatedGpu serial = MakeGpu(checkpoint_);
  std::vector<Result> expected = {Execute(*serial.runner, Prompts())};
  std::vector<int> sequences = {0, 1, 2};
  int step = 0;
  for (const auto& shares : Shares()) {
    sequences = Pick(sequences, shares);
    const std::vector<int32_t> tokens = Pick(expected.back().tokens, shares);
    expected.push_back(Execute(*serial.runner, Decode(++step, sequences, tokens)));
    ASSERT_THAT(expected.back().tokens, Each(Ge(0)));
  }

  // Each begun before the one before is finished. The batch goes once it is begun.
  ModelRunner& runner = *gpu_.runner;
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  sequences = {0, 1, 2};
  step = 0;
  for (const auto& shares : Shares()) {
    sequences = Pick(sequences, shares);
    std::vector<int32_t> tokens;
    for (const size_t share : shares) tokens.push_back(Batch::DrawnBefore(share));
    const absl::Status started = runner.Start(Decode(step + 1, sequences, tokens));
    ASSERT_TRUE(started.ok()) << started;
    const Result actual = Finish(runner);
    EXPECT_TRUE(actual.status.ok()) << actual.status;
    EXPECT_EQ(actual.tokens, expected[static_cast<size_t>(step)].tokens) << step;
    EXPECT_TRUE(actual.sums == expected[static_cast<size_t>(step)].sums) << step;
    ++step;
  }
  EXPECT_EQ(Finish(runner).tokens, expected.back().tokens);
  EXPECT_EQ(gpu_.control->overlaps, step - 1);  // memory grew for the first
  EXPECT_EQ(gpu_.decoder().replayed_steps(), serial.decoder().replayed_steps());
  EXPECT_GT(gpu_.decoder().replayed_steps(), 0);
}

TEST_F(GpuOverlapTest, CountsWhatEightBitPagesCannotHold) {
  TinyCheckpoint large(SmallLlama(), kSeed);
  large.Scale("blk.1.attn_v.weight", 1e9f);
  ModelOptions options = SmallOptions();
  options.kv_dtype = kernels::DType::kFloat8;
  const EmulatedGpu gpu = MakeGpu(large, options);
  const int64_t per_row = SmallLlama().num_kv_heads * SmallLlama().head_dim;
  ModelRunner& runner = *gpu.runner;
  const int64_t prompts = Prompts().num_rows();
  EXPECT_EQ(runner.saturated_values(), 0);
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  const Batch next =
      Decode(1, {0, 1, 2}, {Batch::DrawnBefore(0), Batch::DrawnBefore(1), Batch::DrawnBefore(2)});
  ASSERT_TRUE(runner.Start(next).ok());
  EXPECT_TRUE(Finish(runner).status.ok());
  EXPECT_EQ(runner.saturated_values(), prompts * per_row);  // of the finished step
  EXPECT_TRUE(Finish(runner).status.ok());
  EXPECT_EQ(runner.saturated_values(), (prompts + 3) * per_row);  // a padded one counts nobody
  EXPECT_TRUE(Execute(*gpu_.runner, Prompts()).status.ok());
  EXPECT_EQ(gpu_.runner->saturated_values(), 0);
}

TEST_F(GpuOverlapTest, MemoryGrowsBesideAStep) {
  ModelRunner& runner = *gpu_.runner;
  // Small, then larger in every way, while the first runs.
  Batch small;
  ClearBatch(kStride, &small);
  AddSequence(Tokens(2, 0), 0, BlocksOf(0), kBlockSize, LogitRows::kNone, &small);
  DrawFromLastRows(0, &small);
  const Result alone = Execute(*MakeGpu(checkpoint_).runner, small);
  ASSERT_TRUE(runner.Start(small).ok());
  const int allocations = gpu_.control->allocations;
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  EXPECT_GT(gpu_.control->allocations, allocations);
  EXPECT_EQ(Finish(runner).tokens, alone.tokens);
  EXPECT_EQ(Finish(runner).tokens, Execute(*MakeGpu(checkpoint_).runner, Prompts()).tokens);
}

TEST_F(GpuOverlapTest, RefusesTokensThatNobodyDraws) {
  ModelRunner& runner = *gpu_.runner;
  const auto refused = [](ModelRunner& who, const Batch& batch) {
    const absl::Status status = who.Start(batch);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    return std::string(status.message());
  };
  const Batch next =
      Decode(1, {0, 1, 2}, {Batch::DrawnBefore(0), Batch::DrawnBefore(1), Batch::DrawnBefore(2)});
  EXPECT_THAT(refused(runner, next), HasSubstr("no step before it draws"));  // none is begun
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  EXPECT_THAT(refused(runner, Decode(1, {0}, {Batch::DrawnBefore(3)})),
              HasSubstr("no step before it draws"));
  EXPECT_THAT(refused(runner, Decode(1, {0}, {-1})), HasSubstr("an unknown token"));
  ASSERT_TRUE(runner.Start(next).ok());
  EXPECT_THAT(refused(runner, Decode(2, {0}, {7})), HasSubstr("two steps are begun"));
  EXPECT_TRUE(Finish(runner).status.ok());
  EXPECT_THAT(Finish(runner).tokens, Each(Ge(0)));
  EXPECT_THAT(std::string(Finish(runner).status.message()), HasSubstr("no step is begun"));
  EXPECT_THAT(refused(*MakeCpu(checkpoint_), Decode(1, {0}, {Batch::DrawnBefore(0)})),
              HasSubstr("an unknown token"));
}

TEST_F(GpuOverlapTest, AFaultIsOfOneStep) {
  ModelRunner& runner = *gpu_.runner;
  const std::vector<int32_t> tokens = Execute(runner, Prompts()).tokens;
  const std::vector<int32_t> expected = Execute(runner, Decode(1, {0, 1, 2}, tokens)).tokens;
  // Of the second, which could not be launched.
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  gpu_.control->refuse_products = true;
  EXPECT_EQ(runner.Start(Decode(1, {0, 1, 2}, {-2, -3, -4})),
            absl::InternalError("no product today"));
  gpu_.control->refuse_products = false;
  EXPECT_EQ(Finish(runner).tokens, tokens);
  // Of the first, while it runs.
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  ASSERT_TRUE(runner.Start(Decode(1, {0, 1, 2}, tokens)).ok());
  gpu_.control->fault = "CUDA: misaligned address";
  const Result failed = Finish(runner);
  EXPECT_EQ(failed.status, absl::InternalError("CUDA: misaligned address"));
  EXPECT_THAT(failed.tokens, IsEmpty());
  EXPECT_EQ(Finish(runner).tokens, expected);
  // Of the first, found when memory had to grow for the second.
  Batch wide = Prompts();
  const std::vector<kernels::KeySpan> spans = {{0, 3}, {1, 4}};
  wide.watched = {{0, 4, spans.data(), 2}};
  ASSERT_TRUE(runner.Start(Decode(2, {0}, {7})).ok());
  gpu_.control->fault = "CUDA: misaligned address";
  EXPECT_FALSE(runner.Start(wide).ok());
  EXPECT_EQ(Finish(runner).status, absl::InternalError("CUDA: misaligned address"));
  EXPECT_EQ(Execute(runner, Prompts()).tokens, tokens);
}

// Blocks are zeroed by the step that is started next, or, if it fails, by the one after it.
TEST_F(GpuOverlapTest, ZeroingIsNotLostWithItsStep) {
  ModelRunner& runner = *gpu_.runner;
  const std::vector<int32_t> tokens = Execute(runner, Prompts()).tokens;
  Batch decode = Decode(1, {0, 1, 2}, tokens);
  MeasureSequences(SmallLlama(), /*by_head=*/false, &decode);
  const std::vector<kernels::RowSums> whole = Execute(runner, decode).sums;
  const std::vector<int32_t> zeroed = {BlocksOf(2)[0]};
  runner.ZeroBlocks(zeroed);
  gpu_.control->refuse_products = true;
  EXPECT_FALSE(runner.Start(decode).ok());
  gpu_.control->refuse_products = false;
  gpu_.control->fault = "CUDA: misaligned address";
  EXPECT_FALSE(Execute(runner, decode).status.ok());
  EXPECT_FALSE(Execute(runner, decode).sums == whole);
  EXPECT_TRUE(Execute(runner, Prompts()).tokens == tokens);
  EXPECT_TRUE(Execute(runner, decode).sums == whole);
}

TEST_F(GpuOverlapTest, ALostDeviceFailsBoth) {
  ModelRunner& runner = *gpu_.runner;
  ASSERT_TRUE(runner.Start(Prompts()).ok());
  ASSERT_TRUE(runner.Start(Decode(1, {0}, {Batch::DrawnBefore(0)})).ok());
  gpu_.control->fault = "CUDA: an illegal memory access was encountered";
  gpu_.control->fault_is_fatal = true;
  EXPECT_EQ(Finish(runner).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Finish(runner).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(runner.Start(Prompts()).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace acuity::engine
