#include "engine/report/span_report.h"

#include <algorithm>
#include <cmath>

namespace acuity::engine {

SpanAccumulator::SpanAccumulator(int num_layers, int num_heads, int num_spans)
    : num_layers_(num_layers),
      num_heads_(num_heads),
      num_spans_(num_spans),
      sums_(static_cast<size_t>(num_layers) * num_heads,
            {0, 0, 0, std::vector<double>(static_cast<size_t>(num_spans))}) {}

void SpanAccumulator::Add(std::span<const kernels::RowStats> stats, int total_rows, int row,
                          std::span<const float> masses, int64_t layer_stride, int64_t n,
                          std::span<const int> windows) {
  const auto stats_of = [&](int layer, int head) -> const kernels::RowStats& {
    return stats[(static_cast<size_t>(layer) * total_rows + row) * num_heads_ + head];
  };
  for (int layer = 0; layer < num_layers_; ++layer) {
    for (int head = 0; head < num_heads_; ++head) {
      if (!std::isfinite(stats_of(layer, head).entropy)) return;
    }
  }
  for (int layer = 0; layer < num_layers_; ++layer) {
    const int window = windows.empty() ? 0 : windows[layer];
    const int64_t visible = window > 0 ? std::min<int64_t>(n, window) : n;
    const double log_n = std::log(static_cast<double>(visible));
    for (int head = 0; head < num_heads_; ++head) {
      const kernels::RowStats& of_head = stats_of(layer, head);
      HeadSpans& sum = sums_[static_cast<size_t>(layer) * num_heads_ + head];
      sum.normalized_entropy += visible == 1 ? 1.0 : of_head.entropy / log_n;
      sum.effective_context += std::exp(static_cast<double>(of_head.entropy));
      sum.max_probability += of_head.max_probability;
      for (int s = 0; s < num_spans_; ++s) {
        sum.mass[s] += masses[layer * layer_stride + head * num_spans_ + s];
      }
    }
  }
  ++rows_;
}

SpanReport SpanAccumulator::Report() const {
  SpanReport report;
  if (rows_ == 0) return report;
  report.rows = rows_;
  const double count = static_cast<double>(rows_);
  for (int layer = 0; layer < num_layers_; ++layer) {
    std::vector<HeadSpans>& heads = report.layers.emplace_back();
    for (int head = 0; head < num_heads_; ++head) {
      HeadSpans& mean = heads.emplace_back(sums_[static_cast<size_t>(layer) * num_heads_ + head]);
      mean.normalized_entropy /= count;
      mean.effective_context /= count;
      mean.max_probability /= count;
      for (double& mass : mean.mass) mass /= count;
    }
  }
  return report;
}

}  // namespace acuity::engine
