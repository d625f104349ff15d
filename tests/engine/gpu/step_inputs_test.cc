#include "engine/gpu/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "kernels/cuda/prim/prim.h"
#include "tests/engine/model/batch_maker.h"

namespace acuity::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr kernels::AttentionShape kShape = {4, 2, 64, 16, kernels::DType::kBFloat16};
constexpr int kMaxBucket = 6, kLayers = 3;

// `count` sequences that decode at position `first`.
Batch Decoding(int count, int first) {
  Batch batch;
  const std::vector<int32_t> token = {7}, blocks(static_cast<size_t>(first / 16 + 1), 3);
  ClearBatch(first / 16 + 1, &batch);
  for (int i = 0; i < count; ++i) {
    AddSequence(token, first, blocks, 16, LogitRows::kLast, &batch);
  }
  return batch;
}

class StepInputsTest : public ::testing::Test {
 protected:
  const StepShape& Plan(const Batch& batch, std::vector<int32_t> zeroed = {}) {
    step_.Plan(batch, zeroed);
    bytes_.assign(static_cast<size_t>(step_.offsets().end / 16), {});
    step_.Write(batch, zeroed, {}, reinterpret_cast<std::byte*>(bytes_.data()));
    return step_.shape();
  }
  template <typename T>
  std::vector<T> Read(int64_t offset, int count) const {
    const T* from =
        reinterpret_cast<const T*>(reinterpret_cast<const std::byte*>(bytes_.data()) + offset);
    return {from, from + count};
  }

  StepInputs step_{kShape, kLayers, {0, 100}, kMaxBucket};
  std::vector<kernels::prim::Bits128> bytes_;
};

TEST_F(StepInputsTest, DecodingIsPaddedToABucket) {
  const StepShape& shape = Plan(Decoding(3, 20), {5, 9});
  EXPECT_EQ(shape.rows, 4);
  EXPECT_EQ(shape.seqs, 4);
  EXPECT_EQ(shape.logit_rows, 4);
  EXPECT_EQ(shape.bucket_keys, 512);
  EXPECT_EQ(shape.block_table_stride, 32);
  EXPECT_TRUE(shape.keeps_all);
  ASSERT_EQ(shape.plans.size(), 2u);
  EXPECT_EQ(shape.plans[0].decode, 4 * 2);
  const InputOffsets& at = step_.offsets();
  EXPECT_THAT(Read<int32_t>(at.tokens, 4), ElementsAre(7, 7, 7, -1));
  EXPECT_THAT(Read<int32_t>(at.positions, 4), ElementsAre(20, 20, 20, 0));
  EXPECT_THAT(Read<int64_t>(at.slots, 4), ElementsAre(52, 52, 52, -1));
  EXPECT_THAT(Read<int32_t>(at.qo_indptr, 5), ElementsAre(0, 1, 2, 3, 3));
  EXPECT_THAT(Read<int32_t>(at.kv_len, 4), ElementsAre(21, 21, 21, 0));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Read<int32_t>(at.block_tables + 32 * i * 4, 2), ElementsAre(3, 3));
  }
  EXPECT_THAT(Read<int32_t>(at.zeroed_blocks, 2), ElementsAre(5, 9));
}

TEST_F(StepInputsTest, ABucketDrawsFromAllOfItsRows) {
  Batch batch = Decoding(3, 20);
  batch.logit_rows = {1};
  batch.draws = {{0, {.temperature = 0.5f, .top_k = 4, .seed = 9, .position = 21}},
                 {2, {.top_p = 0.25f, .min_p = 0.125f}}};
  const StepShape& shape = Plan(batch);
  EXPECT_EQ(shape.bucket_keys, 512);
  EXPECT_EQ(shape.logit_rows, 4);
  EXPECT_EQ(shape.draws, 4);
  EXPECT_EQ(shape.PlaceOf(2, 1), 2);
  const auto draws = Read<kernels::SampleRow>(step_.offsets().draws, 4);
  EXPECT_EQ(draws[0].temperature, 0.5f);
  EXPECT_EQ(draws[0].top_k, 4);
  EXPECT_EQ(draws[0].seed, 9u);
  EXPECT_EQ(draws[0].position, 21);
  EXPECT_EQ(draws[1].temperature, 0);  // greedy: leaves the logits alone
  EXPECT_EQ(draws[2].temperature, 1);
  EXPECT_EQ(draws[2].top_p, 0.25f);
  EXPECT_EQ(draws[2].min_p, 0.125f);
  EXPECT_EQ(draws[3].temperature, 0);
  // The same graph as one from which nobody draws.
  const InputOffsets at = step_.offsets();
  EXPECT_EQ(Plan(Decoding(3, 20)).draws, 4);
  EXPECT_EQ(at.draws, step_.offsets().draws);
}

TEST_F(StepInputsTest, BucketsArePowersOfTwoUpToTheLargest) {
  for (const auto& [seqs, bucket] : {std::pair(1, 1), {2, 2}, {4, 4}, {5, 6}, {6, 6}}) {
    EXPECT_EQ(Plan(Decoding(seqs, 3)).seqs, bucket);
  }
  EXPECT_EQ(Plan(Decoding(7, 3)).bucket_keys, 0);  // more than the largest: as it is
  EXPECT_EQ(Plan(Decoding(1, 511)).bucket_keys, 512);
  EXPECT_EQ(Plan(Decoding(1, 512)).bucket_keys, 1024);
}

TEST_F(StepInputsTest, EqualBucketsLieAlike) {
  Plan(Decoding(3, 20));
  const InputOffsets first = step_.offsets();
  Plan(Decoding(4, 400), {1, 2, 3});
  EXPECT_EQ(first.tokens, step_.offsets().tokens);
  EXPECT_EQ(first.slots, step_.offsets().slots);
  EXPECT_EQ(first.block_tables, step_.offsets().block_tables);
  EXPECT_THAT(step_.offsets().plans, ElementsAreArray(first.plans));
}

TEST_F(StepInputsTest, WhatIsNoPureDecodingIsTakenAsItIs) {
  const std::vector<int32_t> tokens = {1, 2, 3}, blocks = {4, 5};
  Batch batch = Decoding(2, 20);
  AddSequence(tokens, 0, blocks, 16, LogitRows::kNone, &batch);
  batch.hidden_rows = {3};
  batch.logit_rows = {1};
  batch.draws = {{0, {.seed = 5}}};
  const StepShape& shape = Plan(batch);
  EXPECT_EQ(shape.bucket_keys, 0);
  EXPECT_EQ(shape.rows, 5);
  EXPECT_EQ(shape.seqs, 3);
  EXPECT_FALSE(shape.keeps_all);
  EXPECT_EQ(shape.plans[0].decode, 2 * 3);  // three rows of a group of two fit a decode task
  EXPECT_THAT(Read<int32_t>(step_.offsets().kept_rows, 3), ElementsAre(1, 0, 3));
  EXPECT_EQ(shape.logit_rows, 2);
  EXPECT_EQ(shape.draws, 1);
  EXPECT_EQ(shape.PlaceOf(0, 0), 0);
  EXPECT_EQ(Read<kernels::SampleRow>(step_.offsets().draws, 1)[0].seed, 5u);

  batch = Decoding(2, 20);
  batch.logit_rows = {1};  // a prompt's chunk of one token
  EXPECT_EQ(Plan(batch).bucket_keys, 0);
  const kernels::KeySpan span = {0, 4};
  batch = Decoding(1, 20);
  batch.watched = {{0, 0, &span, 1}};
  EXPECT_EQ(Plan(batch).bucket_keys, 0);
}

TEST_F(StepInputsTest, MeasuredRowsArePaddedToABucketToo) {
  EXPECT_FALSE(Plan(Decoding(3, 20)).stats);
  EXPECT_EQ(step_.shape().measured, 0);
  Batch batch = Decoding(3, 20);
  kernels::AppendMeasured({1, 2, 21}, kLayers, 4, &batch.measured);
  kernels::AppendMeasured({2, 3, 21, true}, kLayers, 4, &batch.measured);
  const StepShape& shape = Plan(batch);
  EXPECT_TRUE(shape.stats);
  EXPECT_EQ(shape.measured, 4);
  EXPECT_EQ(shape.sums, 3 + 12);
  const auto measured = Read<kernels::MeasuredRows>(step_.offsets().measured, 4);
  EXPECT_EQ(measured[1].row_begin, 2);
  EXPECT_EQ(measured[1].at, 3);
  for (int i = 2; i < 4; ++i) EXPECT_EQ(measured[i].num_rows(), 0);
  batch.logit_rows = {0};  // no bucket: as many as there are
  EXPECT_EQ(Plan(batch).measured, 2);
}

TEST_F(StepInputsTest, ArraysDoNotOverlap) {
  for (Batch batch : {Decoding(5, 700), Decoding(7, 3)}) {
    kernels::AppendMeasured({0, 1, batch.kv_len[0]}, kLayers, 4, &batch.measured);
    const StepShape& shape = Plan(batch, {1});
    const InputOffsets& at = step_.offsets();
    std::vector<int64_t> starts = {at.tokens, at.positions,    at.slots,    at.qo_indptr,
                                   at.kv_len, at.block_tables, at.measured, at.draws,
                                   at.spans,  at.plans[0],     at.plans[1], at.zeroed_blocks,
                                   at.end};
    const std::vector<int64_t> sizes = {4 * shape.rows,
                                        4 * shape.rows,
                                        8 * shape.rows,
                                        4 * (shape.seqs + 1),
                                        4 * shape.seqs,
                                        int64_t{4} * shape.seqs * shape.block_table_stride,
                                        int64_t{sizeof(kernels::MeasuredRows)} * shape.measured,
                                        int64_t{sizeof(kernels::SampleRow)} * shape.draws,
                                        0,
                                        kernels::cuda::PlanBytes(shape.plans[0]),
                                        kernels::cuda::PlanBytes(shape.plans[1]),
                                        4};
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_LE(starts[i] + sizes[i], starts[i + 1]) << i;
      EXPECT_EQ(starts[i] % 16, 0) << i;
    }
  }
}

}  // namespace
}  // namespace acuity::engine
