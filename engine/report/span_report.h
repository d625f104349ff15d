// How much attention went to spans of the prompt that the caller watches, by layer and head.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/row_sums.h"

namespace acuity::engine {

// Means over rows of each row's own quantity.
struct HeadSpans {
  double normalized_entropy = 0;  // H / ln n, 1 at n = 1
  double effective_context = 0;   // e^H
  double max_probability = 0;
  std::vector<double> mass;  // of each span: the sum of its keys' probabilities
};

struct SpanReport {
  int64_t rows = 0;
  std::vector<std::vector<HeadSpans>> layers;  // [num_layers][num_heads], empty without rows
};

// Accumulates one request's watched rows in double precision, in row order. A row whose
// entropy is NaN in some layer and head is left out. Not thread-safe.
class SpanAccumulator {
 public:
  SpanAccumulator(int num_layers, int num_heads, int num_spans);

  // Adds a watched row. sums: its own, [num_layers, num_heads]; masses: of layer l, head h and span
  // s at [l * layer_stride + h * num_spans + s].
  void Add(std::span<const kernels::RowSums> sums, std::span<const float> masses,
           int64_t layer_stride);
  SpanReport Report() const;

 private:
  int num_layers_, num_heads_, num_spans_;
  int64_t rows_ = 0;
  std::vector<HeadSpans> sums_;  // [num_layers, num_heads]
};

}  // namespace acuity::engine
