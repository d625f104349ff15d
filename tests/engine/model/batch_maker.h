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
  batch->measured.clear();
  batch->watched.clear();
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

// Asks for the attention of all rows: summed by sequence and context bucket.
inline void MeasureSequences(const ModelSpec& spec, bool by_head, Batch* batch) {
  batch->measured.clear();
  for (int i = 0; i < batch->num_seqs(); ++i) {
    const int32_t begin = batch->qo_indptr[i], end = batch->qo_indptr[i + 1];
    const int32_t first_n = batch->kv_len[i] - (end - begin) + 1;
    kernels::AppendMeasured({begin, end, first_n, by_head}, spec.num_layers, spec.num_heads,
                            &batch->measured);
  }
}
// The same of each row and head alone: [rows, num_layers, num_heads].
inline void MeasureEachRow(const ModelSpec& spec, Batch* batch) {
  batch->measured.clear();
  for (int32_t row = 0; row < batch->num_rows(); ++row) {
    kernels::AppendMeasured({row, row + 1, batch->positions[row] + 1, /*by_head=*/true},
                            spec.num_layers, spec.num_heads, &batch->measured);
  }
}

}  // namespace acuity::engine
