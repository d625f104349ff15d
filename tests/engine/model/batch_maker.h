// Fills a Batch by hand, without a scheduler.
#pragma once

#include <cstdint>
#include <span>

#include "engine/model/model_runner.h"

namespace acuity::engine {

enum class LogitRows { kNone, kLast, kAll };

// Makes `batch` empty; its sequences' block tables will have `stride` entries.
inline void ClearBatch(int stride, Batch* batch) {
  batch->tokens.clear();
  batch->positions.clear();
  batch->slots.clear();
  batch->qo_indptr.assign(1, 0);
  batch->kv_len.clear();
  batch->block_tables.clear();
  batch->block_table_stride = stride;
  batch->logit_rows.clear();
  batch->hidden_rows.clear();
  batch->draws.clear();
}

// Appends a sequence whose new tokens stand at positions first, first + 1, ...; `blocks` holds all
// of its pages.
inline void AddSequence(std::span<const int32_t> tokens, int first, std::span<const int32_t> blocks,
                        int block_size, LogitRows logit_rows, Batch* batch) {
  const int count = static_cast<int>(tokens.size());
  for (int i = 0; i < count; ++i) {
    const int position = first + i;
    if (logit_rows == LogitRows::kAll || (logit_rows == LogitRows::kLast && i == count - 1)) {
      batch->logit_rows.push_back(batch->num_rows());
    }
    batch->tokens.push_back(tokens[i]);
    batch->positions.push_back(position);
    batch->slots.push_back(int64_t{blocks[position / block_size]} * block_size +
                           position % block_size);
  }
  batch->qo_indptr.push_back(batch->num_rows());
  batch->kv_len.push_back(first + count);
  for (int i = 0; i < batch->block_table_stride; ++i) {
    batch->block_tables.push_back(i < static_cast<int>(blocks.size()) ? blocks[i] : 0);
  }
}

}  // namespace acuity::engine
