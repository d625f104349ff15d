// The planner: every (row, visible key) once, splits at fixed places, slots within the workspace,
// neighbours ignored.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/attention_tiles.h"
#include "tests/kernels/ragged_lengths.h"

namespace acuity::kernels {
namespace {

AttentionShape Shape(int kv_heads, int group) {
  return {kv_heads * group, kv_heads, 64, 16, DType::kFloat32};
}

// How often each (row, key) of one sequence and kv head is covered, and by nothing outside of the
// sequence.
void ExpectCoveredOnce(const RaggedLengths& batch, const AttentionPlan& plan, int seq, int kv_head,
                       int window) {
  const int rows = batch.qo_indptr[seq + 1] - batch.qo_indptr[seq], length = batch.kv_len[seq];
  std::vector<int> count(static_cast<size_t>(rows) * length);
  for (const AttentionTask& task : plan.tasks) {
    if (task.seq != seq || task.kv_head != kv_head) continue;
    ASSERT_GE(task.row_begin, 0);
    ASSERT_LT(task.row_begin, task.row_end);
    ASSERT_LE(task.row_end, rows);
    ASSERT_GE(task.key_begin, 0);
    ASSERT_LT(task.key_begin, task.key_end);
    ASSERT_LE(task.key_end, length);
    for (int row = task.row_begin; row < task.row_end; ++row) {
      for (int key = task.key_begin; key < task.key_end; ++key) ++count[row * length + key];
    }
  }
  for (int row = 0; row < rows; ++row) {
    const int end = length - rows + row + 1;
    const int begin = window > 0 ? std::max(0, end - window) : 0;
    for (int key = begin; key < end; ++key) {
      ASSERT_EQ(count[row * length + key], 1) << "row " << row << " key " << key;
    }
  }
}

// Slots: each written once, each merged once in order of keys, all within the workspace.
void ExpectSlotsMerged(const AttentionShape& shape, const AttentionPlan& plan) {
  const int group = GroupSize(shape);
  const int64_t slots = plan.workspace_floats / SlotFloats(shape);
  EXPECT_EQ(plan.workspace_floats, slots * SlotFloats(shape));
  std::vector<const AttentionTask*> writer(slots);
  for (const AttentionTask& task : plan.tasks) {
    if (task.split_slot < 0) continue;
    EXPECT_EQ(task.key_begin / kSplitKeys, (task.key_end - 1) / kSplitKeys) << "one split";
    for (int r = 0; r < (task.row_end - task.row_begin) * group; ++r) {
      ASSERT_LT(task.split_slot + r, slots);
      ASSERT_EQ(writer[task.split_slot + r], nullptr) << "slot written twice";
      writer[task.split_slot + r] = &task;
    }
  }
  std::vector<int> read(slots);
  for (const MergeTask& merge : plan.merges) {
    const int packed = (merge.row_end - merge.row_begin) * group;
    for (int p = 0; p < merge.num_slots; ++p) {
      for (int r = 0; r < packed; ++r) {
        const int slot = merge.first_slot + p * packed + r;
        ASSERT_LT(slot, slots);
        ++read[slot];
        const AttentionTask& task = *writer[slot];
        EXPECT_EQ(task.seq, merge.seq);
        EXPECT_EQ(task.kv_head, merge.kv_head);
        EXPECT_EQ(task.row_begin, merge.row_begin);
        EXPECT_EQ(task.row_end, merge.row_end);
        if (p == 0) continue;
        EXPECT_EQ(task.key_begin, writer[slot - packed]->key_end) << "order of keys";
      }
    }
  }
  EXPECT_TRUE(std::all_of(read.begin(), read.end(), [](int n) { return n == 1; }));
}

class AttentionPlanRandom : public testing::TestWithParam<int> {};

TEST_P(AttentionPlanRandom, CoversEveryRowAndKeyOnce) {
  std::mt19937 random(GetParam());
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const int groups[] = {1, 2, 3, 5, 8, 100};
  const AttentionShape shape = Shape(pick(1, 4), groups[pick(0, 5)]);
  const int window = pick(0, 2) == 0 ? pick(1, 1500) : 0;
  RaggedLengths batch;
  for (int i = pick(1, 5); i > 0; --i) {
    const int length = pick(1, pick(0, 1) == 0 ? 40 : 2200);
    batch.Add(pick(0, 1) == 0 ? pick(0, std::min(2, length)) : pick(0, std::min(400, length)),
              length);
  }
  AttentionPlan plan;
  plan.tasks.resize(3);  // left from the step before
  plan.merges.resize(3);
  PlanAttention(shape, batch.ragged(), window, &plan);
  for (size_t seq = 0; seq < batch.kv_len.size(); ++seq) {
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      ExpectCoveredOnce(batch, plan, static_cast<int>(seq), head, window);
    }
  }
  ExpectSlotsMerged(shape, plan);
}

INSTANTIATE_TEST_SUITE_P(Seeds, AttentionPlanRandom, testing::Range(0, 60));

TEST(AttentionPlan, LongContextDecodeIsSplitAtFixedKeys) {
  RaggedLengths batch;
  batch.Add(1, 5 * kSplitKeys + 7);
  AttentionPlan plan;
  PlanAttention(Shape(2, 3), batch.ragged(), 0, &plan);
  ASSERT_EQ(plan.tasks.size(), 12u);
  for (const AttentionTask& task : plan.tasks) EXPECT_EQ(task.key_begin % kSplitKeys, 0);
  ASSERT_EQ(plan.merges.size(), 2u);
  EXPECT_EQ(plan.merges[0].num_slots, 6);
  EXPECT_EQ(plan.workspace_floats, 2 * 6 * 3 * SlotFloats(Shape(2, 3)));
}

TEST(AttentionPlan, ShortDecodeAndLongPrefillNeedNoWorkspace) {
  RaggedLengths batch;
  batch.Add(1, kSplitKeys);
  batch.Add(8192, 8192);
  AttentionPlan plan;
  PlanAttention(Shape(3, 3), batch.ragged(), 0, &plan);
  EXPECT_EQ(plan.workspace_floats, 0);
  EXPECT_TRUE(plan.merges.empty());
}

TEST(AttentionPlan, WorkspaceIsBounded) {
  // Only sequences of fewer than kMinTasks row tiles x kv heads use it: one slot per packed row and
  // split.
  const AttentionShape shape = Shape(2, 3);
  for (int rows : {1, 31, 32, 33, 200, 224, 256, 1000}) {
    RaggedLengths batch;
    batch.Add(rows, 9000);
    AttentionPlan plan;
    PlanAttention(shape, batch.ragged(), 0, &plan);
    const int64_t splits = (9000 + kSplitKeys - 1) / kSplitKeys;
    EXPECT_LE(plan.workspace_floats, int64_t{kMinTasks} * kPackedRows * splits * SlotFloats(shape));
  }
}

TEST(AttentionPlan, ASequenceIsSplitWithoutRegardToItsNeighbours) {
  const AttentionShape shape = Shape(2, 3);
  RaggedLengths alone, crowd;
  alone.Add(3, 4000);
  for (int i = 0; i < 40; ++i) crowd.Add(1 + i % 7, 100 + 90 * i);
  crowd.Add(3, 4000);
  AttentionPlan a, b;
  PlanAttention(shape, alone.ragged(), 0, &a);
  PlanAttention(shape, crowd.ragged(), 0, &b);
  std::vector<AttentionTask> last;
  for (const AttentionTask& task : b.tasks) {
    if (task.seq == 40) last.push_back(task);
  }
  ASSERT_EQ(last.size(), a.tasks.size());
  for (size_t i = 0; i < last.size(); ++i) {
    EXPECT_EQ(last[i].key_begin, a.tasks[i].key_begin);
    EXPECT_EQ(last[i].key_end, a.tasks[i].key_end);
    EXPECT_EQ(last[i].row_begin, a.tasks[i].row_begin);
    EXPECT_EQ(last[i].row_end, a.tasks[i].row_end);
  }
}

TEST(AttentionPlan, WindowSkipsTheKeysBeforeIt) {
  RaggedLengths batch;
  batch.Add(2, 5000);
  AttentionPlan plan;
  PlanAttention(Shape(1, 1), batch.ragged(), 100, &plan);
  ASSERT_EQ(plan.tasks.size(), 1u);
  EXPECT_EQ(plan.tasks[0].key_begin, 4899);
  EXPECT_EQ(plan.tasks[0].key_end, 5000);
}

TEST(AttentionPlan, SteadyStateAllocatesNothing) {
  RaggedLengths batch;
  batch.Add(1, 5000);
  AttentionPlan plan;
  PlanAttention(Shape(2, 1), batch.ragged(), 0, &plan);
  const AttentionTask* tasks = plan.tasks.data();
  const MergeTask* merges = plan.merges.data();
  PlanAttention(Shape(2, 1), batch.ragged(), 0, &plan);
  EXPECT_EQ(plan.tasks.data(), tasks);
  EXPECT_EQ(plan.merges.data(), merges);
}

}  // namespace
}  // namespace acuity::kernels
