#include "engine/report/attention_report.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace acuity::engine {

AttentionAccumulator::AttentionAccumulator(int num_layers, int num_heads)
    : num_layers_(num_layers),
      num_heads_(num_heads),
      sums_(static_cast<size_t>(num_layers) * kBuckets * num_heads) {}

void AttentionAccumulator::Sums::Add(const Sums& other) {
  rows += other.rows;
  entropy += other.entropy;
  normalized += other.normalized;
  effective += other.effective;
  fraction += other.fraction;
  max_probability += other.max_probability;
}

const AttentionAccumulator::Sums& AttentionAccumulator::At(int layer, int bucket, int head) const {
  return sums_[(static_cast<size_t>(layer) * kBuckets + bucket) * num_heads_ + head];
}

void AttentionAccumulator::Add(std::span<const kernels::RowStats> stats, int total_rows,
                               int row_begin, int num_rows, int64_t first_n,
                               std::span<const int> windows) {
  const int64_t layer_stride = static_cast<int64_t>(total_rows) * num_heads_;
  for (int row = 0; row < num_rows; ++row) {
    const auto of_row = stats.subspan(static_cast<size_t>(row_begin + row) * num_heads_);
    if (!IsFinite(of_row, layer_stride)) continue;
    for (int layer = 0; layer < num_layers_; ++layer) {
      const int window = windows.empty() ? 0 : windows[layer];
      const int64_t n = window > 0 ? std::min<int64_t>(first_n + row, window) : first_n + row;
      AddRow(layer, n, of_row.subspan(static_cast<size_t>(layer * layer_stride), num_heads_));
    }
    ++rows_;
  }
}

bool AttentionAccumulator::IsFinite(std::span<const kernels::RowStats> of_row,
                                    int64_t layer_stride) const {
  for (int layer = 0; layer < num_layers_; ++layer) {
    for (const kernels::RowStats& head :
         of_row.subspan(static_cast<size_t>(layer * layer_stride), num_heads_)) {
      if (!std::isfinite(head.entropy)) return false;
    }
  }
  return true;
}

void AttentionAccumulator::AddRow(int layer, int64_t n,
                                  std::span<const kernels::RowStats> of_head) {
  const int bucket =
      std::min(static_cast<int>(std::bit_width(static_cast<uint64_t>(n))) - 1, kBuckets - 1);
  const double log_n = std::log(static_cast<double>(n));
  Sums* sums = &sums_[(static_cast<size_t>(layer) * kBuckets + bucket) * num_heads_];
  for (int head = 0; head < num_heads_; ++head) {
    const double entropy = of_head[head].entropy;
    const double effective = std::exp(entropy);
    sums[head].Add({.rows = 1,
                    .entropy = entropy,
                    .normalized = n == 1 ? 1.0 : entropy / log_n,
                    .effective = effective,
                    .fraction = effective / static_cast<double>(n),
                    .max_probability = of_head[head].max_probability});
  }
}

std::vector<AttentionBucket> AttentionAccumulator::Buckets(int layer_begin, int layer_end,
                                                           int head_begin, int head_end) const {
  std::vector<AttentionBucket> buckets;
  for (int bucket = 0; bucket < kBuckets; ++bucket) {
    Sums sums;
    int64_t rows = 0;
    for (int layer = layer_begin; layer < layer_end; ++layer) {
      for (int head = head_begin; head < head_end; ++head) sums.Add(At(layer, bucket, head));
      rows = std::max(rows, At(layer, bucket, head_begin).rows);
    }
    if (rows == 0) continue;
    const double count = static_cast<double>(sums.rows);
    buckets.push_back({.n_min = int64_t{1} << bucket,
                       .n_max = (int64_t{2} << bucket) - 1,
                       .rows = rows,
                       .entropy = sums.entropy / count,
                       .normalized_entropy = sums.normalized / count,
                       .effective_context = sums.effective / count,
                       .effective_context_fraction = sums.fraction / count,
                       .max_probability = sums.max_probability / count});
  }
  return buckets;
}

AttentionReport AttentionAccumulator::Report(std::span<const std::string> policies,
                                             bool heads) const {
  AttentionReport report = Summary(policies, num_layers_);
  if (!heads) return report;
  for (LayerReport& layer : report.layers) {
    for (int head = 0; head < num_heads_; ++head) {
      layer.heads.push_back({head, Buckets(layer.layer, layer.layer + 1, head, head + 1)});
    }
  }
  return report;
}

AttentionReport AttentionAccumulator::Summary(std::span<const std::string> policies,
                                              int bands) const {
  AttentionReport report;
  if (rows_ == 0) return report;
  bands = std::min(bands, num_layers_);
  for (int band = 0; band < bands; ++band) {
    const int begin = static_cast<int>(int64_t{band} * num_layers_ / bands);
    const int end = static_cast<int>((int64_t{band} + 1) * num_layers_ / bands);
    const bool mixed = std::any_of(policies.begin() + begin, policies.begin() + end,
                                   [&](const std::string& p) { return p != policies[begin]; });
    report.layers.push_back({.layer = begin,
                             .last_layer = end - 1,
                             .policy = mixed ? "mixed" : policies[begin],
                             .buckets = Buckets(begin, end, 0, num_heads_),
                             .heads = {}});
  }
  return report;
}

}  // namespace acuity::engine
