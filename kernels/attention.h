// Paged, ragged, causal attention with any logit policy and the attention statistics fused.
// One API for every backend: Supports() names what it cannot do, Plan() splits the work, Run()
// computes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention_stats.h"
#include "kernels/dtype.h"
#include "kernels/logit_policy.h"
#include "kernels/parallel.h"

namespace acuity::kernels {

// The shapes that stay the same for a model's life (one layer kind).
struct AttentionShape {
  int num_heads = 0;     // query heads
  int num_kv_heads = 0;  // divides num_heads (GQA group = num_heads / num_kv_heads)
  int head_dim = 0;
  int block_size = 0;  // tokens per KV page
  DType kv_dtype = DType::kFloat32;
};

constexpr int GroupSize(const AttentionShape& shape) {
  return shape.num_heads / shape.num_kv_heads;
}

// A ragged batch: sequence i has qo_indptr[i+1] - qo_indptr[i] new rows, the last of which sits at
// position kv_len[i] - 1. Its keys, new ones included, are already in the pages. Host pointers, not
// owned.
struct RaggedBatch {
  int num_seqs = 0;
  const int32_t* qo_indptr = nullptr;     // [num_seqs + 1], qo_indptr[0] == 0, non-decreasing
  const int32_t* kv_len = nullptr;        // [num_seqs], >= the sequence's new rows
  const int32_t* block_tables = nullptr;  // [num_seqs, block_table_stride] physical page ids
  int block_table_stride = 0;
};

// One layer's call. q and out may not overlap; pages are read only.
struct AttentionParams {
  AttentionShape shape;
  RaggedBatch batch;
  const float* q =
      nullptr;  // [rows, num_heads, head_dim], after rotary; row stride q_stride floats
  int64_t q_stride = 0;
  const void* k_pages = nullptr;  // [pages, num_kv_heads, block_size, head_dim] of kv_dtype
  const void* v_pages = nullptr;  // same
  float* out = nullptr;           // [rows, num_heads, head_dim]; row stride out_stride floats
  int64_t out_stride = 0;
  RowStats* stats = nullptr;  // [rows, num_heads], or null: statistics are then not computed
  LogitPolicy policy;
  float softmax_scale = 1;       // usually 1/sqrt(head_dim)
  float logit_softcap = 0;       // 0: none; else z <- cap * tanh(z / cap), before the mask
  int window = 0;                // 0: none; else a row sees its last `window` keys
  const float* sinks = nullptr;  // [num_heads] extra logit in the denominator, or null
};

// A piece of work: rows [row_begin, row_end) of one sequence against its keys [key_begin, key_end),
// for one KV head.
struct AttentionTask {
  int32_t seq = 0;
  int32_t kv_head = 0;
  int32_t row_begin = 0, row_end = 0;  // within the sequence's new rows
  int32_t key_begin = 0, key_end = 0;
  // A workspace slot holds the partial result of one packed row (row - row_begin) * group + head in
  // group.
  // >= 0: that of packed row r goes to slot split_slot + r, and the keys are one split; -1:
  // straight to `out`.
  int32_t split_slot = -1;
};

// Rows whose keys were split over several tasks: their partial results, merged in slot order.
struct MergeTask {
  int32_t seq = 0;
  int32_t kv_head = 0;
  int32_t row_begin = 0, row_end = 0;
  // Partial p of packed row r is in slot first_slot + p * packed rows + r, p in [0, num_slots).
  int32_t first_slot = 0, num_slots = 0;
};

// Reused from step to step: vectors keep their capacity, so a steady state allocates nothing.
struct AttentionPlan {
  std::vector<AttentionTask> tasks;
  std::vector<MergeTask> merges;
  int64_t workspace_floats = 0;  // what Run needs
};

// Null if the backend can serve this, else a static sentence naming the field and what is allowed.
const char* Supports(const AttentionShape& shape);

// Splits the work. Every (row, visible key) is covered exactly once. The split of a sequence
// depends on that sequence alone, not on its neighbours or the number of threads: results are
// bit-identical in any batch. Run computes every row over the same absolute key tiles and splits
// whatever the tasks are: a row's result does not depend on how its prompt was cut into chunks
// either (recomputed and prefix-cached rows are the same bits). `window` as in AttentionParams.
// Pure; clears and fills *plan.
void PlanAttention(const AttentionShape& shape, const RaggedBatch& batch, int window,
                   AttentionPlan* plan);

// Computes out (and stats). `workspace` has plan.workspace_floats floats. Thread-compatible.
void RunAttention(const AttentionParams& params, const AttentionPlan& plan, float* workspace,
                  const ParallelFor& parallel);

}  // namespace acuity::kernels
