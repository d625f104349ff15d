// How much attention single rows give to spans of keys. For a watched row, over its visible real
// keys,
//
//   mass[h, s] = sum_{j in span s} exp(z_hj - lse_h),  z the final logits (scale, policy, softcap)
//
// and lse_h of the statistics that attention itself made (RowStats): a sink takes no part, so the
// masses of spans that cover all keys add up to 1. Only watched rows cost anything: one pass over
// the keys of their spans.
#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace acuity::kernels {

// Keys [begin, end) of a sequence; those that a row does not see have no mass.
struct KeySpan {
  int32_t begin = 0, end = 0;
};

// One row of a batch and the spans that are asked of it. Not owned.
struct WatchedRow {
  int32_t seq = 0;
  int32_t row = 0;  // within the sequence's new rows
  const KeySpan* spans = nullptr;
  int32_t num_spans = 0;
};

// `params` as RunAttention had them, whose pages and q are unchanged since and whose stats it
// filled. Writes `mass` [num_heads, watched.num_spans], in [0, 1]. Thread-compatible.
void SpanMass(const AttentionParams& params, const WatchedRow& watched, float* mass,
              const ParallelFor& parallel);

}  // namespace acuity::kernels
