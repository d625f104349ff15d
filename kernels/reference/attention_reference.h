// Attention in double precision, one row at a time: the oracle of every backend. Tests only.
#pragma once

#include <vector>

#include "kernels/attention.h"

namespace acuity::kernels {

// RowStats and what else a test may ask of a row, over the visible real keys.
struct ReferenceStats {
  double entropy = 0;  // nats
  double max_probability = 0;
  double log_sum_exp = 0;       // nats
  double mean_logit = 0;        // sum_j p_j z_j, final logits
  double sink_probability = 0;  // the sink's share of the output's denominator
};

// Doubles in params' layout without strides.
struct ReferenceResult {
  std::vector<double> out;            // [rows, num_heads, head_dim]
  std::vector<ReferenceStats> stats;  // [rows, num_heads]
};

// params.out, out_stride and stats are not used.
ReferenceResult AttentionReference(const AttentionParams& params);

}  // namespace acuity::kernels
