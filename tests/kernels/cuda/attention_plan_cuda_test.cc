// The planner of the GPU: every (row, visible key) once, within what one block can take, slots
// merged once and in order, a captured launch's bounds kept.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_variant.h"
#include "tests/kernels/ragged_lengths.h"

namespace acuity::kernels::cuda {
namespace {

AttentionShape Shape(int kv_heads, int group) {
  return {kv_heads * group, kv_heads, 128, 16, DType::kBFloat16};
}

// [sequence][kv head][row][key]: how many tasks cover it.
void ExpectCoveredOnce(const AttentionShape& shape, const RaggedLengths& batch,
                       const AttentionPlan& plan, int window) {
  std::vector<AttentionTask> tasks = plan.decode;
  tasks.insert(tasks.end(), plan.prefill.begin(), plan.prefill.end());
  for (int seq = 0; seq < static_cast<int>(batch.kv_len.size()); ++seq) {
    const int rows = batch.qo_indptr[seq + 1] - batch.qo_indptr[seq], length = batch.kv_len[seq];
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      std::vector<int> count(static_cast<size_t>(rows) * length);
      for (const AttentionTask& task : tasks) {
        if (task.seq != seq || task.kv_head != head) continue;
        ASSERT_TRUE(0 <= task.row_begin && task.row_begin < task.row_end && task.row_end <= rows);
        ASSERT_TRUE(0 <= task.key_begin && task.key_begin < task.key_end && task.key_end <= length);
        for (int row = task.row_begin; row < task.row_end; ++row) {
          for (int key = task.key_begin; key < task.key_end; ++key) ++count[row * length + key];
        }
      }
      for (int row = 0; row < rows; ++row) {
        const int end = length - rows + row + 1;
        for (int key = window > 0 ? std::max(0, end - window) : 0; key < end; ++key) {
          ASSERT_EQ(count[row * length + key], 1) << "row " << row << " key " << key;
        }
      }
    }
  }
}

// What a block can hold.
void ExpectTasksFit(const AttentionShape& shape, const AttentionPlan& plan) {
  for (const AttentionTask& task : plan.decode) {
    EXPECT_LE((task.row_end - task.row_begin) * GroupSize(shape), kDecodeRows);
    EXPECT_EQ(task.key_begin / kDecodeSplitKeys, (task.key_end - 1) / kDecodeSplitKeys);
  }
  for (const AttentionTask& task : plan.prefill) {
    EXPECT_LE((task.row_end - task.row_begin) * GroupSize(shape), kPrefillRows);
  }
}

void ExpectSlotsMerged(const AttentionShape& shape, const AttentionPlan& plan) {
  const int64_t slots = plan.workspace_floats / SlotFloats(shape.head_dim);
  ASSERT_EQ(plan.workspace_floats, slots * SlotFloats(shape.head_dim));
  std::vector<const AttentionTask*> writer(slots);
  for (const auto* tasks : {&plan.decode, &plan.prefill}) {
    for (const AttentionTask& task : *tasks) {
      if (task.split_slot < 0) continue;
      for (int r = 0; r < (task.row_end - task.row_begin) * GroupSize(shape); ++r) {
        ASSERT_LT(task.split_slot + r, slots);
        ASSERT_EQ(writer[task.split_slot + r], nullptr) << "a slot written twice";
        writer[task.split_slot + r] = &task;
      }
    }
  }
  std::vector<int> read(slots);
  for (const MergeTask& merge : plan.merges) {
    const int packed = (merge.row_end - merge.row_begin) * GroupSize(shape);
    EXPECT_GE(merge.num_slots, 2);
    for (int i = 0; i < merge.num_slots * packed; ++i) {
      const int slot = merge.first_slot + i;
      ASSERT_LT(slot, slots);
      ++read[slot];
      ASSERT_NE(writer[slot], nullptr);
      EXPECT_TRUE(writer[slot]->seq == merge.seq && writer[slot]->kv_head == merge.kv_head &&
                  writer[slot]->row_begin == merge.row_begin &&
                  writer[slot]->row_end == merge.row_end);
      if (i < packed) continue;
      EXPECT_EQ(writer[slot]->key_begin, writer[slot - packed]->key_end);
    }
  }
  EXPECT_TRUE(std::all_of(read.begin(), read.end(), [](int n) { return n == 1; }));
}

class CudaAttentionPlan : public testing::TestWithParam<int> {};

TEST_P(CudaAttentionPlan, CoversEveryRowAndKeyOnce) {
  std::mt19937 random(GetParam());
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const int groups[] = {1, 3, 4, 8, 16, 17, 64};
  const AttentionShape shape = Shape(pick(1, 4), groups[pick(0, 6)]);
  const int window = pick(0, 2) == 0 ? pick(1, 1500) : 0;
  RaggedLengths batch;
  for (int i = pick(1, 5); i > 0; --i) {
    const int length = pick(1, pick(0, 1) == 0 ? 40 : 2200);
    batch.Add(pick(0, 1) == 0 ? pick(0, std::min(2, length)) : pick(0, std::min(300, length)),
              length);
  }
  AttentionPlan plan;
  plan.decode.resize(3);  // left from the step before
  plan.merges.resize(3);
  PlanAttention(shape, batch.ragged(), window, &plan);
  ExpectCoveredOnce(shape, batch, plan, window);
  ExpectTasksFit(shape, plan);
  ExpectSlotsMerged(shape, plan);
}

INSTANTIATE_TEST_SUITE_P(Seeds, CudaAttentionPlan, testing::Range(0, 30));

TEST(CudaAttentionPlan, WarpgroupsTakeTwiceTheRowsAndTheirOwnCapacity) {
  const AttentionShape shape = Shape(2, 4);
  RaggedLengths batch;
  batch.Add(300, 700);
  AttentionPlan plan;
  PlanAttention(shape, batch.ragged(), 0, &plan, PrefillWith::kWarpgroups);
  ExpectCoveredOnce(shape, batch, plan, 0);
  ExpectSlotsMerged(shape, plan);
  int32_t most = 0;
  for (const AttentionTask& task : plan.prefill) {
    most = std::max(most, (task.row_end - task.row_begin) * GroupSize(shape));
  }
  EXPECT_EQ(most, kWarpgroupPrefillRows);
  PlanCapacity capacity = CapacityOf(plan);
  std::vector<std::max_align_t> bytes(PlanBytes(capacity) / sizeof(std::max_align_t) + 1);
  EXPECT_TRUE(WritePlan(plan, capacity, bytes.data()));
  capacity.prefill_with = PrefillWith::kWarps;
  EXPECT_FALSE(WritePlan(plan, capacity, bytes.data()));
}

TEST(CudaAttentionPlan, WhatWarpgroupsRefuse) {
  AttentionShape shape = Shape(2, 4);
  EXPECT_EQ(SupportsWarpgroups(shape, 0), nullptr);
  EXPECT_NE(SupportsWarpgroups(shape, 30), nullptr);
  shape.head_dim = 256;
  EXPECT_NE(SupportsWarpgroups(shape, 0), nullptr);
  shape.head_dim = 96;
  EXPECT_STREQ(SupportsWarpgroups(shape, 0), cuda::Supports(shape));
}

TEST(CudaAttentionPlan, ASequenceIsCutTheSameInAnyBatch) {
  const AttentionShape shape = Shape(2, 4);
  RaggedLengths alone, among;
  alone.Add(1, 3000);
  among.Add(700, 900);
  among.Add(1, 3000);
  AttentionPlan first, second;
  PlanAttention(shape, alone.ragged(), 0, &first);
  PlanAttention(shape, among.ragged(), 0, &second);
  std::vector<AttentionTask> same;
  for (const AttentionTask& task : second.decode) {
    if (task.seq == 1) same.push_back(task);
  }
  ASSERT_EQ(same.size(), first.decode.size());
  for (size_t i = 0; i < same.size(); ++i) {
    EXPECT_EQ(same[i].key_begin, first.decode[i].key_begin);
    EXPECT_EQ(same[i].key_end, first.decode[i].key_end);
  }
}

TEST(CudaAttentionPlan, ShortChunkOfALongPrefixIsSplitLongPromptIsNot) {
  const AttentionShape shape = Shape(2, 4);  // 16 rows a tile
  RaggedLengths chunk, prompt;
  chunk.Add(32, 8192);
  prompt.Add(8192, 8192);
  AttentionPlan plan;
  PlanAttention(shape, chunk.ragged(), 0, &plan);
  EXPECT_EQ(plan.prefill.size(), 2u * 2 * 8192 / kPrefillSplitKeys);
  PlanAttention(shape, prompt.ragged(), 0, &plan);
  EXPECT_EQ(plan.workspace_floats, 0);
}

TEST(CudaAttentionPlan, ACapturedDecodeHoldsAnyBatchWithinItsBounds) {
  constexpr int kSeqs = 7, kMaxLength = 3000;
  std::mt19937 random(5);
  for (int group : {1, 8, 16, 32}) {
    const AttentionShape shape = Shape(3, group);
    const PlanCapacity capacity = DecodeCapacity(shape, kSeqs, kMaxLength);
    const int64_t floats = DecodeWorkspaceFloats(shape, kSeqs, kMaxLength);
    std::vector<std::byte> bytes(PlanBytes(capacity));
    for (int window : {0, 100, 700}) {
      for (int trial = 0; trial < 20; ++trial) {
        RaggedLengths batch;
        for (int i = 0; i < kSeqs; ++i) {
          batch.Add(1, trial == 0 ? kMaxLength : 1 + static_cast<int>(random() % kMaxLength));
        }
        AttentionPlan plan;
        PlanAttention(shape, batch.ragged(), window, &plan);
        EXPECT_LE(plan.workspace_floats, floats);
        EXPECT_TRUE(WritePlan(plan, capacity, bytes.data()));
      }
    }
  }
}

TEST(CudaAttentionPlan, WrittenPlansReadBack) {
  const AttentionShape shape = Shape(2, 4);
  RaggedLengths batch;
  batch.Add(1, 2000);
  batch.Add(40, 1500);
  AttentionPlan plan;
  PlanAttention(shape, batch.ragged(), 0, &plan);
  PlanCapacity capacity = CapacityOf(plan);
  capacity.decode += 3;
  std::vector<std::byte> bytes(PlanBytes(capacity));
  ASSERT_TRUE(WritePlan(plan, capacity, bytes.data()));
  const DevicePlan read = ReadPlan(capacity, bytes.data());
  EXPECT_EQ(read.counts[0], static_cast<int32_t>(plan.decode.size()));
  EXPECT_EQ(read.counts[1], static_cast<int32_t>(plan.prefill.size()));
  EXPECT_EQ(read.counts[2], static_cast<int32_t>(plan.merges.size()));
  const auto equal = [](const auto* read, const auto& written) {
    return std::memcmp(read, written.data(), written.size() * sizeof(written[0])) == 0;
  };
  EXPECT_TRUE(equal(read.decode, plan.decode));
  EXPECT_TRUE(equal(read.prefill, plan.prefill));
  EXPECT_TRUE(equal(read.merges, plan.merges));
  capacity.merges = static_cast<int32_t>(plan.merges.size()) - 1;
  EXPECT_FALSE(WritePlan(plan, capacity, bytes.data()));
}

TEST(CudaAttention, UnsupportedShapesAreNamed) {
  const AttentionShape good = Shape(2, 4);
  EXPECT_EQ(cuda::Supports(good), nullptr);
  const auto reason = [&](auto change) {
    AttentionShape shape = good;
    change(shape);
    const char* text = cuda::Supports(shape);
    return std::string(text == nullptr ? "" : text);
  };
  EXPECT_EQ(reason([](AttentionShape& s) { s.num_kv_heads = 3; }).rfind("num_heads", 0), 0u);
  EXPECT_EQ(reason([](AttentionShape& s) { s.num_heads = 130; }).rfind("num_heads", 0), 0u);
  EXPECT_EQ(reason([](AttentionShape& s) { s.head_dim = 80; }).rfind("head_dim", 0), 0u);
  EXPECT_EQ(reason([](AttentionShape& s) { s.block_size = 8; }).rfind("block_size", 0), 0u);
  EXPECT_EQ(reason([](AttentionShape& s) { s.block_size = 48; }).rfind("block_size", 0), 0u);
  EXPECT_EQ(reason([](AttentionShape& s) { s.kv_dtype = DType::kFloat32; }).rfind("kv_dtype", 0),
            0u);
  AttentionShape small = good;
  small.kv_dtype = DType::kFloat8;
  EXPECT_EQ(cuda::Supports(small), nullptr);
  EXPECT_STREQ(SupportsWarpgroups(small, 0),
               "kv_dtype must be bfloat16 or float16 for prefill with warpgroups");
}

}  // namespace
}  // namespace acuity::kernels::cuda
