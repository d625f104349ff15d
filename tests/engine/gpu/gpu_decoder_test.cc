// What the GPU's decoder does besides the mathematics (gpu_parity_test.cc): outputs, graphs,
// memory, refusals and faults.
#include "engine/gpu/gpu_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "tests/engine/gpu/gpu_fixture.h"

namespace acuity::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kVocab = 101, kHidden = 64;

// A prompt of sequence `sequence`, all of whose rows' logits are wanted.
Batch PromptBatch(int sequence, int size) {
  Batch batch;
  ClearBatch(kStride, &batch);
  AddSequence(Tokens(size, sequence), 0, BlocksOf(sequence), kBlockSize, LogitRows::kAll, &batch);
  return batch;
}

std::vector<float> RowOf(const std::vector<float>& rows, int row, int width) {
  return {rows.begin() + row * width, rows.begin() + (row + 1) * width};
}

TEST(GpuDecoderTest, LogitAndHiddenRowsAreThoseOfTheWholeBatch) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  const Result all = Execute(*gpu.runner, PromptBatch(0, 20));
  ASSERT_EQ(all.logits.size(), 20u * kVocab);
  Batch batch = PromptBatch(0, 20);
  batch.logit_rows = {};
  EXPECT_THAT(Execute(*gpu.runner, batch).logits, IsEmpty());
  batch.hidden_rows = {0, 5, 6, 19};
  batch.logit_rows = {2, 17, 18};
  const Result some = Execute(*gpu.runner, batch);
  ASSERT_EQ(some.logits.size(), 3u * kVocab);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(RowOf(some.logits, i, kVocab) ==
                RowOf(all.logits, batch.logit_rows[static_cast<size_t>(i)], kVocab));
  }
  // All states at once take another way through the last layer.
  batch.logit_rows = {};
  batch.hidden_rows.resize(20);
  std::iota(batch.hidden_rows.begin(), batch.hidden_rows.end(), 0);
  const Result states = Execute(*gpu.runner, batch);
  const int wanted[] = {0, 5, 6, 19};
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(RowOf(some.hidden, i, kHidden) == RowOf(states.hidden, wanted[i], kHidden));
  }
  const auto cpu = MakeCpu(checkpoint);
  EXPECT_LT(RelativeDifference(states.hidden, Execute(*cpu, batch).hidden), 0.02);
}

TEST(GpuDecoderTest, NeighboursAndStatisticsDoNotChangeABit) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  const Result alone = Execute(*gpu.runner, PromptBatch(1, 9));
  Batch batch = PromptBatch(0, 11);
  AddSequence(Tokens(9, 1), 0, BlocksOf(1), kBlockSize, LogitRows::kAll, &batch);
  MeasureSequences(SmallLlama(), true, &batch);
  const Result together = Execute(*gpu.runner, batch);
  EXPECT_TRUE(
      std::equal(alone.logits.begin(), alone.logits.end(), together.logits.begin() + 11 * kVocab));
  EXPECT_THAT(alone.sums, IsEmpty());
  EXPECT_EQ(together.sums.size(), 3u * (4 + 4) * 4);  // n of 1, 2, 4 and 8 on: of each prompt
}

// One step after the other, of three sequences and then two, in buckets of four and two.
std::vector<Result> Decode(ModelRunner& runner, int steps) {
  for (int i = 0; i < 3; ++i) Execute(runner, PromptBatch(i, 5 + 9 * i));
  std::vector<Result> results;
  for (int step = 0; step < steps; ++step) {
    std::vector<int> sequences = {0, 1, 2}, first = {5 + step, 14 + step, 23 + step};
    if (step % 3 == 2) {
      sequences = {2, 0};
      first = {23 + step, 5 + step};
    }
    Batch batch = DecodeBatch(sequences, first, step);
    // Not of all sequences, and not all heads together.
    if (step % 2 == 0) MeasureSequences(SmallLlama(), step % 4 == 0, &batch);
    if (step % 8 == 0) batch.measured.pop_back();
    results.push_back(Execute(runner, batch));
    if (step % 3 == 2) {  // sequence 1 catches up, or its cache would have a hole
      results.push_back(Execute(runner, DecodeBatch({1}, {14 + step}, step)));
    }
  }
  return results;
}

TEST(GpuDecoderTest, ReplayedGraphsGiveTheSameBits) {
  ModelSpec spec = SmallLlama();
  spec.layers[1].window = 12;
  const TinyCheckpoint checkpoint(spec, kSeed);
  const EmulatedGpu with = MakeGpu(checkpoint), without = MakeGpu(checkpoint);
  without.control->refuse_captures = true;
  const std::vector<Result> replayed = Decode(*with.runner, 12);
  const std::vector<Result> eager = Decode(*without.runner, 12);
  for (size_t i = 0; i < eager.size(); ++i) {
    ASSERT_TRUE(replayed[i].status.ok() && eager[i].status.ok());
    EXPECT_TRUE(replayed[i].logits == eager[i].logits) << "step " << i;
    EXPECT_TRUE(replayed[i].sums == eager[i].sums) << "step " << i;
  }
  // Buckets of 4, 2 and 1, the first two with statistics and without; a first step each.
  EXPECT_EQ(with.control->captures, 5);
  EXPECT_EQ(with.decoder().replayed_steps(), 16 - 5);
  EXPECT_EQ(with.control->replays, 16 - 5);
  EXPECT_TRUE(with.decoder().graph_status().ok());
  EXPECT_EQ(without.decoder().replayed_steps(), 0);
  EXPECT_EQ(without.decoder().graph_status().message(), "no capture today");
}

TEST(GpuDecoderTest, ModelsWithExpertsHaveNoGraphs) {
  ModelSpec spec = SmallLlama();
  spec.experts = {6, 2};
  spec.ffn_size = 48;
  const TinyCheckpoint checkpoint(spec, kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  for (const Result& result : Decode(*gpu.runner, 6)) EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(gpu.control->captures, 0);
  EXPECT_EQ(gpu.decoder().replayed_steps(), 0);
  EXPECT_EQ(gpu.decoder().graph_status().code(), absl::StatusCode::kUnimplemented);
}

// Sums of sequences are those of their rows, whoever else is measured and by whatever launch.
TEST(GpuDecoderTest, SumsAreOfTheRowsThatWereAskedFor) {
  ModelSpec spec = SmallLlama();
  spec.layers[1].window = 12;
  const TinyCheckpoint checkpoint(spec, kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  for (int i = 0; i < 3; ++i) Execute(*gpu.runner, PromptBatch(i, 5 + 9 * i));
  Batch batch = DecodeBatch({0, 1, 2}, {5, 14, 23}, 7);
  MeasureEachRow(spec, &batch);
  const std::vector<kernels::RowSums> rows = Execute(*gpu.runner, batch).sums;
  ASSERT_EQ(rows.size(), 3u * 3 * 4);
  batch.measured.clear();
  kernels::AppendMeasured({0, 1, 6}, 3, 4, &batch.measured);
  kernels::AppendMeasured({2, 3, 24, true}, 3, 4, &batch.measured);
  for (int i = 0; i < 2; ++i) {  // captured, and replayed
    const std::vector<kernels::RowSums> sums = Execute(*gpu.runner, batch).sums;
    ASSERT_EQ(sums.size(), 3u + 3 * 4);
    EXPECT_TRUE(std::equal(sums.begin() + 3, sums.end(), rows.begin() + 2 * 12));
    for (int layer = 0; layer < 3; ++layer) {
      int64_t entropy = 0, normalized = 0;
      for (int head = 0; head < 4; ++head) {
        entropy += rows[layer * 4 + head].entropy;
        normalized += rows[layer * 4 + head].normalized;
      }
      EXPECT_EQ(sums[layer].rows, 4);
      EXPECT_EQ(sums[layer].entropy, entropy);
      EXPECT_EQ(sums[layer].normalized, normalized);
    }
  }
  EXPECT_EQ(gpu.decoder().replayed_steps(), 2);
}

TEST(GpuDecoderTest, ASteadyStateAllocatesNothingAndReadsBackOnce) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  Decode(*gpu.runner, 2);
  const int allocations = gpu.control->allocations, copies = gpu.control->copies_to_host;
  for (int step = 2; step < 6; ++step) {
    ASSERT_TRUE(Execute(*gpu.runner, DecodeBatch({0, 1, 2}, {5 + step, 14 + step, 23 + step}, step))
                    .status.ok());
  }
  EXPECT_EQ(gpu.control->allocations, allocations);
  EXPECT_EQ(gpu.control->copies_to_host, copies + 4);
}

TEST(GpuDecoderTest, ZeroedBlocksForgetAtTheNextStep) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  Execute(*gpu.runner, PromptBatch(0, 32));
  Execute(*gpu.runner, PromptBatch(1, 32));
  const Result before = Execute(*gpu.runner, DecodeBatch({0}, {32}, 7));
  const std::vector<int32_t> second = {BlocksOf(0)[1], BlocksOf(0)[1]};  // twice: once
  gpu.runner->ZeroBlocks(second);
  // Also by a step that replays: the first of this bucket was `before`.
  const Result damaged = Execute(*gpu.runner, DecodeBatch({0}, {32}, 7));
  const Result neighbour = Execute(*gpu.runner, DecodeBatch({1}, {32}, 7));
  ASSERT_TRUE(damaged.status.ok());
  EXPECT_FALSE(damaged.logits == before.logits);
  EXPECT_GT(gpu.decoder().replayed_steps(), 0);
  // Once only: the block's next owner keeps what it writes.
  Execute(*gpu.runner, PromptBatch(0, 32));
  EXPECT_TRUE(Execute(*gpu.runner, DecodeBatch({0}, {32}, 7)).logits == before.logits);
  EXPECT_EQ(neighbour.logits.size(), size_t{kVocab});
}

TEST(GpuDecoderTest, SpansHaveTheCpusMass) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  const auto cpu = MakeCpu(checkpoint);
  const std::vector<kernels::KeySpan> spans = {{0, 5}, {3, 19}, {18, 40}};
  Batch batch = PromptBatch(0, 19);
  AddSequence(Tokens(4, 1), 0, BlocksOf(1), kBlockSize, LogitRows::kLast, &batch);
  batch.watched = {{0, 18, spans.data(), 3}, {1, 3, spans.data(), 1}};
  // Twice: the second may not add to the first.
  for (int i = 0; i < 2; ++i) {
    const Result actual = Execute(*gpu.runner, batch), expected = Execute(*cpu, batch);
    ASSERT_TRUE(actual.status.ok()) << actual.status;
    ASSERT_EQ(actual.span_mass.size(), 3u * 4 * (3 + 1));
    ASSERT_EQ(actual.span_mass.size(), expected.span_mass.size());
    for (size_t j = 0; j < actual.span_mass.size(); ++j) {
      EXPECT_NEAR(actual.span_mass[j], expected.span_mass[j], 0.02) << j;
    }
  }
}

TEST(GpuDecoderTest, EmptyAndBadBatches) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  Batch batch;
  ClearBatch(kStride, &batch);
  EXPECT_TRUE(Execute(*gpu.runner, batch).status.ok());
  batch = PromptBatch(0, 9);
  batch.tokens[3] = kVocab;
  EXPECT_THAT(Execute(*gpu.runner, batch).status.ToString(), HasSubstr("an unknown token"));
  EXPECT_TRUE(Execute(*gpu.runner, PromptBatch(0, 9)).status.ok());
}

TEST(GpuDecoderTest, RefusesWhatNoKernelServes) {
  const auto expect = [](const std::function<void(ModelSpec*, ModelOptions*)>& change,
                         const std::string& text) {
    ModelSpec spec = SmallLlama();
    ModelOptions options = SmallOptions();
    change(&spec, &options);
    const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
    const absl::Status status =
        CreateOnGpu(checkpoint, spec, options, std::make_shared<HostDevice::Control>()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  expect([](ModelSpec*, ModelOptions* o) { o->weight_dtype = kernels::DType::kFloat32; },
         "dtype is not bfloat16");
  expect([](ModelSpec*, ModelOptions* o) { o->kv_dtype = kernels::DType::kFloat16; },
         "kv_dtype is neither bfloat16 nor float8");
  expect([](ModelSpec* s, ModelOptions*) { s->head_dim = 80; },
         "head_dim must be 64, 128 or 256 on a GPU: num_heads is 4, num_kv_heads 2, head_dim 80");
  expect([](ModelSpec*, ModelOptions* o) { o->block_size = 8; }, "block_size must be");
  expect(
      [](ModelSpec* s, ModelOptions*) {
        s->experts = {65, 33};
      },
      "experts are 65, 33 per token; at most 64 and 32 on a GPU");
  expect([](ModelSpec* s, ModelOptions*) { s->max_context = 2 << 20; },
         "max_context is 2097152; at most 1048576 on a GPU");
  expect([](ModelSpec* s, ModelOptions*) { s->ropes[0].rotary_dim = 24; },
         "rotary_dim is 24; a multiple of 16 on a GPU");
  expect([](ModelSpec* s, ModelOptions*) { s->num_layers = 0; }, "num_layers is 0");
  expect([](ModelSpec*, ModelOptions* o) { o->kv_memory_bytes = 1000; },
         "kv_memory_bytes is 1000; one block of 16 tokens takes 24576");
  expect(
      [](ModelSpec*, ModelOptions* o) {
        o->kv_memory_bytes = 1000;
        o->kv_dtype = kernels::DType::kFloat8;
      },
      "kv_memory_bytes is 1000; one block of 16 tokens takes 12288");
}

TEST(GpuDecoderTest, TheKvCacheTakesWhatIsFree) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  ModelOptions options = SmallOptions();
  options.kv_memory_bytes = 0;
  auto control = std::make_shared<HostDevice::Control>();
  control->memory_bytes = (int64_t{1} << 30) + (20 << 20);
  auto runner = CreateOnGpu(checkpoint, SmallLlama(), options, control);
  ASSERT_TRUE(runner.ok()) << runner.status();
  const int64_t used = (*runner)->num_blocks() * (*runner)->bytes_per_block();
  EXPECT_GT(used, 10 << 20);
  EXPECT_LT(used, 20 << 20);
  EXPECT_GT((*runner)->weight_bytes(), 101 * 64 * 2);
  runner->reset();
  EXPECT_EQ(control->allocated_bytes, 0);

  control->memory_bytes = int64_t{1} << 30;
  absl::Status status = CreateOnGpu(checkpoint, SmallLlama(), options, control).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("bytes free for the KV cache"));
  control->memory_bytes = 1000;
  status = CreateOnGpu(checkpoint, SmallLlama(), options, control).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the weights"));
  EXPECT_EQ(control->allocated_bytes, 0);
}

TEST(GpuDecoderTest, AFaultFailsItsStepAlone) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  const Result before = Execute(*gpu.runner, PromptBatch(0, 9));
  gpu.control->fault = "CUDA: misaligned address";
  const Result failed = Execute(*gpu.runner, PromptBatch(0, 9));
  EXPECT_EQ(failed.status, absl::InternalError("CUDA: misaligned address"));
  EXPECT_THAT(failed.logits, IsEmpty());
  EXPECT_TRUE(gpu.runner->health().ok());
  gpu.control->refuse_products = true;
  EXPECT_EQ(Execute(*gpu.runner, PromptBatch(0, 9)).status,
            absl::InternalError("no product today"));
  gpu.control->refuse_products = false;
  EXPECT_TRUE(Execute(*gpu.runner, PromptBatch(0, 9)).logits == before.logits);
}

TEST(GpuDecoderTest, ALostDeviceFailsEveryLaterStep) {
  const TinyCheckpoint checkpoint(SmallLlama(), kSeed);
  const EmulatedGpu gpu = MakeGpu(checkpoint);
  ASSERT_TRUE(Execute(*gpu.runner, PromptBatch(0, 9)).status.ok());
  gpu.control->fault = "CUDA: an illegal memory access was encountered";
  gpu.control->fault_is_fatal = true;
  EXPECT_EQ(Execute(*gpu.runner, PromptBatch(0, 9)).status.code(), absl::StatusCode::kInternal);
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = Execute(*gpu.runner, PromptBatch(0, 9)).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("the GPU is lost: CUDA: an illegal"));
  }
  EXPECT_EQ(gpu.runner->health().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace acuity::engine
