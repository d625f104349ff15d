#include "engine/report/span_report.h"

#include <algorithm>

namespace acuity::engine {

SpanAccumulator::SpanAccumulator(int num_layers, int num_heads, int num_spans)
    : num_layers_(num_layers),
      num_heads_(num_heads),
      num_spans_(num_spans),
      sums_(static_cast<size_t>(num_layers) * num_heads,
            {0, 0, 0, std::vector<double>(static_cast<size_t>(num_spans))}) {}

void SpanAccumulator::Add(std::span<const kernels::RowSums> sums, std::span<const float> masses,
                          int64_t layer_stride) {
  sums = sums.first(sums_.size());
  if (std::any_of(sums.begin(), sums.end(), [](const auto& s) { return s.rows == 0; })) return;
  for (size_t i = 0; i < sums_.size(); ++i) {
    HeadSpans& sum = sums_[i];
    sum.normalized_entropy += static_cast<double>(sums[i].normalized) * kernels::kRowSumUnit;
    sum.effective_context += static_cast<double>(sums[i].effective) * kernels::kEffectiveUnit;
    sum.max_probability += static_cast<double>(sums[i].max_probability) * kernels::kRowSumUnit;
    const auto layer = static_cast<int64_t>(i) / num_heads_;
    const auto head = static_cast<int64_t>(i) % num_heads_;
    for (int s = 0; s < num_spans_; ++s) {
      sum.mass[s] += masses[layer * layer_stride + head * num_spans_ + s];
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
