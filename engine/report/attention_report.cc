#include "engine/report/attention_report.h"

#include <algorithm>

#include "engine/base/check.h"

namespace acuity::engine {

AttentionAccumulator::AttentionAccumulator(int num_layers, int num_heads, bool by_head)
    : num_layers_(num_layers),
      num_heads_(num_heads),
      width_(by_head ? num_heads : 1),
      sums_(static_cast<size_t>(num_layers) * kBuckets * width_) {}

void AttentionAccumulator::Sums::Add(const auto& other) {
  rows += other.rows;
  entropy += other.entropy;
  normalized += other.normalized;
  effective += other.effective;
  fraction += other.fraction;
  max_probability += other.max_probability;
}

void AttentionAccumulator::Add(const kernels::MeasuredRows& rows,
                               std::span<const kernels::RowSums> sums,
                               std::span<const int> windows) {
  const int heads = rows.by_head ? num_heads_ : 1;
  ACUITY_CHECK(heads >= width_);
  for (int layer = 0; layer < num_layers_; ++layer) {
    // All rows are in the bucket of the first: see MeasuredRows.
    const int window = windows[layer];
    const int n = window > 0 ? std::min(rows.first_n, window) : rows.first_n;
    const int bucket = kernels::ContextBucket(n);
    for (int head = 0; head < heads; ++head) {
      const kernels::RowSums& of_head = sums[static_cast<size_t>(layer) * heads + head];
      sums_[Index(layer, bucket, width_ > 1 ? head : 0)].Add(of_head);
      empty_ = empty_ && of_head.rows == 0;
    }
  }
}

std::vector<AttentionBucket> AttentionAccumulator::Buckets(int layer_begin, int layer_end,
                                                           int head) const {
  const int head_begin = head == kAllHeads ? 0 : head;
  const int head_end = head == kAllHeads ? width_ : head + 1;
  const int heads = head == kAllHeads ? num_heads_ : 1;
  std::vector<AttentionBucket> buckets;
  for (int bucket = 0; bucket < kBuckets; ++bucket) {
    Sums sums;
    int64_t rows = 0;
    for (int layer = layer_begin; layer < layer_end; ++layer) {
      const Wide before = sums.rows;
      for (int i = head_begin; i < head_end; ++i) sums.Add(sums_[Index(layer, bucket, i)]);
      rows = std::max(rows, static_cast<int64_t>((sums.rows - before + heads - 1) / heads));
    }
    if (rows == 0) continue;
    const auto mean = [&](Wide sum, double unit) {
      return static_cast<double>(sum) * unit / static_cast<double>(sums.rows);
    };
    buckets.push_back({.n_min = int64_t{1} << bucket,
                       .n_max = (int64_t{2} << bucket) - 1,
                       .rows = rows,
                       .entropy = mean(sums.entropy, kernels::kRowSumUnit),
                       .normalized_entropy = mean(sums.normalized, kernels::kRowSumUnit),
                       .effective_context = mean(sums.effective, kernels::kEffectiveUnit),
                       .effective_context_fraction = mean(sums.fraction, kernels::kRowSumUnit),
                       .max_probability = mean(sums.max_probability, kernels::kRowSumUnit)});
  }
  return buckets;
}

AttentionReport AttentionAccumulator::Report(std::span<const std::string> policies,
                                             bool heads) const {
  AttentionReport report = Summary(policies, num_layers_);
  if (!heads || report.empty()) return report;
  ACUITY_CHECK(width_ == num_heads_);
  for (LayerReport& layer : report.layers) {
    for (int head = 0; head < num_heads_; ++head) {
      layer.heads.push_back({head, Buckets(layer.layer, layer.layer + 1, head)});
    }
  }
  return report;
}

AttentionReport AttentionAccumulator::Summary(std::span<const std::string> policies,
                                              int bands) const {
  AttentionReport report;
  if (empty_) return report;
  bands = std::min(bands, num_layers_);
  for (int band = 0; band < bands; ++band) {
    const int begin = static_cast<int>(int64_t{band} * num_layers_ / bands);
    const int end = static_cast<int>((int64_t{band} + 1) * num_layers_ / bands);
    const bool mixed = std::any_of(policies.begin() + begin, policies.begin() + end,
                                   [&](const std::string& p) { return p != policies[begin]; });
    report.layers.push_back({.layer = begin,
                             .last_layer = end - 1,
                             .policy = mixed ? "mixed" : policies[begin],
                             .buckets = Buckets(begin, end),
                             .heads = {}});
  }
  return report;
}

}  // namespace acuity::engine
