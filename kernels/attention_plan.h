// How a sequence's attention becomes tasks: shared by the planners of every backend.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace acuity::kernels {

// How a backend cuts. All of it depends on the sequence alone: so do its results.
struct SplitRules {
  int32_t tile_rows = 1;   // rows of a task at most
  int32_t split_keys = 1;  // where keys are split, it is at absolute multiples of this
  int32_t min_tasks = 0;   // a sequence with fewer (row tile, KV head) pairs has its keys split
};

// The tasks of a sequence with `rows` new rows, the last at position kv_len - 1.
struct SequenceToPlan {
  int32_t index = 0;  // in the batch
  int32_t rows = 0;
  int32_t kv_len = 0;
};

// Appends them, and a merge for each split row tile, whose workspace slots begin at `slot`. Returns
// the slot behind the last one used.
int32_t AppendSequence(const AttentionShape& shape, const SplitRules& rules,
                       const SequenceToPlan& sequence, int window, int32_t slot,
                       std::vector<AttentionTask>* tasks, std::vector<MergeTask>* merges);

}  // namespace acuity::kernels
