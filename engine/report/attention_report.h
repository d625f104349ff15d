// How flat attention was, aggregated: layer x (head) x context bucket, of the prompt's rows or the
// generated ones'.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/row_sums.h"

namespace acuity::engine {

// Means over rows (and heads, and the layers of a band) of the per-row quantity. Bucket b covers n
// in [2^b, 2^(b+1) - 1], n the keys visible to the row.
struct AttentionBucket {
  int64_t n_min = 0, n_max = 0;
  // Rows of tokens; of a band: of the layer with the most. Where some heads left rows out: the mean
  // of its heads, rounded up.
  int64_t rows = 0;
  double entropy = 0;                     // nats
  double normalized_entropy = 0;          // H / ln n, 1 at n = 1
  double effective_context = 0;           // e^H
  double effective_context_fraction = 0;  // e^H / n
  double max_probability = 0;
};

struct HeadReport {
  int head = 0;
  std::vector<AttentionBucket> buckets;  // only those with rows, ascending
};
struct LayerReport {
  int layer = 0;
  int last_layer = 0;                    // == layer, unless this is a band [layer, last_layer]
  std::string policy;                    // "mixed" for a band whose layers differ
  std::vector<AttentionBucket> buckets;  // over all heads
  std::vector<HeadReport> heads;         // empty unless asked for
};
struct AttentionReport {
  std::vector<LayerReport> layers;
  bool empty() const { return layers.empty(); }
};

// Accumulates one request's rows, of all heads together or of each. Exact until a mean is divided
// out: the same bits however the rows were cut into steps and in whatever order they came. A row
// counts in a layer and head only if its entropy there is a number. Not thread-safe.
class AttentionAccumulator {
 public:
  AttentionAccumulator(int num_layers, int num_heads, bool by_head);

  // Adds measured rows of a step, whose own sums begin at `sums`; by head if this accumulator is.
  // windows: as the sums were made with, [num_layers], > 0 caps n.
  void Add(const kernels::MeasuredRows& rows, std::span<const kernels::RowSums> sums,
           std::span<const int> windows);
  // `policies`: [num_layers] names. Buckets per head only with `heads`, which only an
  // accumulator by head has. Empty before the first row.
  AttentionReport Report(std::span<const std::string> policies, bool heads) const;
  // Layers averaged into `bands` >= 1 nearly equal parts (front, middle, back ...; one for each
  // layer if there are fewer layers), each as one LayerReport: what SUMMARY returns and the metrics
  // observe.
  AttentionReport Summary(std::span<const std::string> policies, int bands) const;
  bool empty() const { return empty_; }

 private:
  static constexpr int kBuckets = 21;   // up to kernels::kMostSummedKeys; nobody sums beyond
  __extension__ using Wide = __int128;  // any number of kernels::RowSums adds up in it
  struct Sums {
    Wide rows = 0, entropy = 0, normalized = 0, effective = 0, fraction = 0, max_probability = 0;

    void Add(const auto& other);
  };
  // The buckets with rows, over [layer_begin, layer_end) and all heads, or one.
  std::vector<AttentionBucket> Buckets(int layer_begin, int layer_end, int head = kAllHeads) const;
  size_t Index(int layer, int bucket, int head) const {
    return (static_cast<size_t>(layer) * kBuckets + bucket) * width_ + head;
  }

  static constexpr int kAllHeads = -1;
  int num_layers_, num_heads_;
  int width_;  // num_heads, or 1: all of them
  bool empty_ = true;
  std::vector<Sums> sums_;  // [num_layers, kBuckets, width]
};

}  // namespace acuity::engine
