// How flat attention was, aggregated: layer x (head) x context bucket, of the prompt's rows or the
// generated ones'.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention_stats.h"

namespace acuity::engine {

// Means over rows (and heads, and the layers of a band) of the per-row quantity. Bucket b covers n
// in [2^b, 2^(b+1) - 1], n the keys visible to the row.
struct AttentionBucket {
  int64_t n_min = 0, n_max = 0;
  int64_t rows = 0;                       // rows of tokens; of a band: of the layer with the most
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

// Accumulates one request's rows in double precision, in row order: deterministic, and the same
// however the rows were cut into steps. A row whose entropy is NaN in some layer and head is left
// out of all of them: it tells nothing of attention. Not thread-safe.
class AttentionAccumulator {
 public:
  AttentionAccumulator(int num_layers, int num_heads);

  // Adds `num_rows` rows of one step. stats: [num_layers, total_rows, num_heads] of the step; the
  // rows are [row_begin, row_begin + num_rows), the first of which sees `first_n` >= 1 keys, the
  // next one more, ...; windows[layer] > 0 caps n for that layer (no windows: none is capped).
  void Add(std::span<const kernels::RowStats> stats, int total_rows, int row_begin, int num_rows,
           int64_t first_n, std::span<const int> windows);
  // `policies`: [num_layers] names. Buckets per head only with `heads`. Empty before the first row.
  AttentionReport Report(std::span<const std::string> policies, bool heads) const;
  // Layers averaged into `bands` >= 1 nearly equal parts (front, middle, back ...; one for each
  // layer if there are fewer layers), each as one LayerReport: what SUMMARY returns and the metrics
  // observe.
  AttentionReport Summary(std::span<const std::string> policies, int bands) const;
  int64_t rows() const { return rows_; }  // not those that were left out

 private:
  static constexpr int kBuckets = 21;  // up to 2^21 - 1 keys; longer contexts count in the last
  struct Sums {
    int64_t rows = 0;
    double entropy = 0, normalized = 0, effective = 0, fraction = 0, max_probability = 0;

    void Add(const Sums& other);
  };
  // `of_row`: from the row's first layer on, its other layers `layer_stride` further each.
  bool IsFinite(std::span<const kernels::RowStats> of_row, int64_t layer_stride) const;
  void AddRow(int layer, int64_t n, std::span<const kernels::RowStats> of_head);
  // The buckets with rows, over [layer_begin, layer_end) x [head_begin, head_end).
  std::vector<AttentionBucket> Buckets(int layer_begin, int layer_end, int head_begin,
                                       int head_end) const;
  const Sums& At(int layer, int bucket, int head) const;

  int num_layers_, num_heads_;
  int64_t rows_ = 0;
  std::vector<Sums> sums_;  // [num_layers, kBuckets, num_heads]
};

}  // namespace acuity::engine
