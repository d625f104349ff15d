#include <algorithm>

#include "kernels/attention.h"
#include "kernels/cpu/attention_tiles.h"

namespace acuity::kernels {
namespace {

// The rows of one sequence, and where they are.
struct Sequence {
  int32_t index;
  int32_t rows;
  int32_t first_position;  // of row 0
};

// Keys that rows [row_begin, row_end) see between them: [begin, end).
struct KeyRange {
  int32_t begin, end;
};

KeyRange VisibleKeys(const Sequence& seq, int32_t row_begin, int32_t row_end, int window) {
  const int32_t first_end = seq.first_position + row_begin + 1;
  const int32_t begin = window > 0 && first_end > window ? first_end - window : 0;
  return {begin, seq.first_position + row_end};
}

// Cuts the keys of a task at absolute multiples of kSplitKeys; returns the workspace slot after the
// last one used.
int32_t AddSplitTasks(const AttentionShape& shape, const AttentionTask& whole, int32_t slot,
                      AttentionPlan* plan) {
  const int32_t packed_rows = (whole.row_end - whole.row_begin) * GroupSize(shape);
  MergeTask merge{whole.seq, whole.kv_head, whole.row_begin, whole.row_end, slot, 0};
  AttentionTask task = whole;
  for (int32_t begin = whole.key_begin; begin < whole.key_end; begin = task.key_end) {
    task.key_begin = begin;
    task.key_end = std::min(whole.key_end, (begin / kSplitKeys + 1) * kSplitKeys);
    task.split_slot = slot;
    slot += packed_rows;
    ++merge.num_slots;
    plan->tasks.push_back(task);
  }
  plan->merges.push_back(merge);
  return slot;
}

int32_t PlanSequence(const AttentionShape& shape, const Sequence& seq, int window, int32_t slot,
                     AttentionPlan* plan) {
  const int32_t tile_rows = RowsPerTile(shape);
  const int64_t row_tiles = (seq.rows + tile_rows - 1) / tile_rows;
  const bool split_keys = row_tiles * shape.num_kv_heads < kMinTasks;
  for (int32_t row = 0; row < seq.rows; row += tile_rows) {
    const int32_t row_end = std::min(seq.rows, row + tile_rows);
    const KeyRange keys = VisibleKeys(seq, row, row_end, window);
    const bool several = keys.begin / kSplitKeys != (keys.end - 1) / kSplitKeys;
    for (int32_t head = 0; head < shape.num_kv_heads; ++head) {
      const AttentionTask task{seq.index, head, row, row_end, keys.begin, keys.end, -1};
      if (split_keys && several) {
        slot = AddSplitTasks(shape, task, slot, plan);
      } else {
        plan->tasks.push_back(task);
      }
    }
  }
  return slot;
}

}  // namespace

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
  if (shape.kv_dtype != DType::kFloat32 && shape.kv_dtype != DType::kBFloat16) {
    return "kv_dtype must be float32 or bfloat16";
  }
  return nullptr;
}

void PlanAttention(const AttentionShape& shape, const RaggedBatch& batch, int window,
                   AttentionPlan* plan) {
  plan->tasks.clear();
  plan->merges.clear();
  int32_t slot = 0;
  for (int32_t i = 0; i < batch.num_seqs; ++i) {
    const int32_t rows = batch.qo_indptr[i + 1] - batch.qo_indptr[i];
    slot = PlanSequence(shape, {i, rows, batch.kv_len[i] - rows}, window, slot, plan);
  }
  plan->workspace_floats = slot * SlotFloats(shape);
}

}  // namespace acuity::kernels
