#include "kernels/attention_plan.h"

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/attention_tiles.h"

namespace acuity::kernels {
namespace {

// Keys that rows [row_begin, row_end) see between them: [begin, end).
struct KeyRange {
  int32_t begin, end;
};

KeyRange VisibleKeys(const SequenceToPlan& seq, int32_t row_begin, int32_t row_end, int window) {
  const int32_t first_position = seq.kv_len - seq.rows;
  const int32_t first_end = first_position + row_begin + 1;
  const int32_t begin = window > 0 && first_end > window ? first_end - window : 0;
  return {begin, first_position + row_end};
}

// Cuts the keys of a task at absolute multiples of split_keys; returns the workspace slot after the
// last one used.
int32_t AppendSplits(const AttentionTask& whole, int32_t packed_rows, int32_t split_keys,
                     int32_t slot, std::vector<AttentionTask>* tasks,
                     std::vector<MergeTask>* merges) {
  MergeTask merge{whole.seq, whole.kv_head, whole.row_begin, whole.row_end, slot, 0};
  AttentionTask task = whole;
  for (int32_t begin = whole.key_begin; begin < whole.key_end; begin = task.key_end) {
    task.key_begin = begin;
    task.key_end = std::min(whole.key_end, (begin / split_keys + 1) * split_keys);
    task.split_slot = slot;
    slot += packed_rows;
    ++merge.num_slots;
    tasks->push_back(task);
  }
  merges->push_back(merge);
  return slot;
}

}  // namespace

int32_t AppendSequence(const AttentionShape& shape, const SplitRules& rules,
                       const SequenceToPlan& seq, int window, int32_t slot,
                       std::vector<AttentionTask>* tasks, std::vector<MergeTask>* merges) {
  const int64_t row_tiles = (seq.rows + rules.tile_rows - 1) / rules.tile_rows;
  const bool split_keys = row_tiles * shape.num_kv_heads < rules.min_tasks;
  for (int32_t row = 0; row < seq.rows; row += rules.tile_rows) {
    const int32_t row_end = std::min(seq.rows, row + rules.tile_rows);
    const int32_t packed_rows = (row_end - row) * GroupSize(shape);
    const KeyRange keys = VisibleKeys(seq, row, row_end, window);
    const bool several = keys.begin / rules.split_keys != (keys.end - 1) / rules.split_keys;
    for (int32_t head = 0; head < shape.num_kv_heads; ++head) {
      const AttentionTask task{seq.index, head, row, row_end, keys.begin, keys.end, -1};
      if (split_keys && several) {
        slot = AppendSplits(task, packed_rows, rules.split_keys, slot, tasks, merges);
      } else {
        tasks->push_back(task);
      }
    }
  }
  return slot;
}

const char* Supports(const AttentionShape& shape) {
  if (shape.num_kv_heads < 1 || shape.num_heads < 1 || shape.num_heads % shape.num_kv_heads != 0) {
    return "num_heads must be a positive multiple of num_kv_heads";
  }
  if (shape.head_dim < kHeadDimStep || shape.head_dim > kMaxHeadDim ||
      shape.head_dim % kHeadDimStep != 0) {
    return "head_dim must be a multiple of 16, from 16 to 256";
  }
  if (shape.block_size < 1 || (shape.block_size & (shape.block_size - 1)) != 0) {
    return "block_size must be a power of two";
  }
  if (shape.kv_dtype == DType::kFloat16) return "kv_dtype must be float32, bfloat16 or float8";
  return nullptr;
}

void PlanAttention(const AttentionShape& shape, const RaggedBatch& batch, int window,
                   AttentionPlan* plan) {
  plan->tasks.clear();
  plan->merges.clear();
  const SplitRules rules = {RowsPerTile(shape), kSplitKeys, kMinTasks};
  int32_t slot = 0;
  for (int32_t i = 0; i < batch.num_seqs; ++i) {
    const int32_t rows = batch.qo_indptr[i + 1] - batch.qo_indptr[i];
    slot = AppendSequence(shape, rules, {i, rows, batch.kv_len[i]}, window, slot, &plan->tasks,
                          &plan->merges);
  }
  plan->workspace_floats = slot * SlotFloats(shape);
}

}  // namespace acuity::kernels
