#include "kernels/attention_span.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace acuity::kernels {
namespace {

constexpr std::array<float, 256> kFloat8Values = [] {
  std::array<float, 256> values{};
  for (size_t i = 0; i < values.size(); ++i) values[i] = Float8ToFloat(static_cast<uint8_t>(i));
  return values;
}();

// A watched row's keys: where they are and which it sees.
class RowKeys {
 public:
  RowKeys(const AttentionParams& params, const WatchedRow& watched)
      : shape_(params.shape),
        pages_(params.k_pages),
        table_(params.batch.block_tables + int64_t{watched.seq} * params.batch.block_table_stride) {
    const RaggedBatch& batch = params.batch;
    const int32_t new_rows = batch.qo_indptr[watched.seq + 1] - batch.qo_indptr[watched.seq];
    position_ = batch.kv_len[watched.seq] - new_rows + watched.row;
    if (params.window > 0) begin_ = std::max(0, position_ + 1 - params.window);
  }

  int32_t position() const { return position_; }
  int32_t begin() const { return begin_; }
  int32_t end() const { return position_ + 1; }

  float Dot(const float* q, int kv_head, int32_t key) const {
    const int64_t page = table_[key / shape_.block_size];
    const int64_t slot =
        (page * shape_.num_kv_heads + kv_head) * shape_.block_size + key % shape_.block_size;
    if (shape_.kv_dtype == DType::kFloat32) {
      return DotOf(q, static_cast<const float*>(pages_) + slot * shape_.head_dim,
                   [](float x) { return x; });
    }
    if (shape_.kv_dtype == DType::kBFloat16) {
      return DotOf(q, static_cast<const uint16_t*>(pages_) + slot * shape_.head_dim,
                   BFloat16ToFloat);
    }
    return DotOf(q, static_cast<const uint8_t*>(pages_) + slot * shape_.head_dim,
                 [](uint8_t bits) { return kFloat8Values[bits]; });
  }

 private:
  // In kLanes sums, which the compiler can keep in one register.
  template <typename T, typename ToFloat>
  float DotOf(const float* q, const T* k, ToFloat to_float) const {
    constexpr int kLanes = 8;  // divides head_dim: see Supports()
    float sums[kLanes] = {};
    for (int d = 0; d < shape_.head_dim; d += kLanes) {
      for (int i = 0; i < kLanes; ++i) sums[i] += q[d + i] * to_float(k[d + i]);
    }
    float sum = 0;
    for (float s : sums) sum += s;
    return sum;
  }

  const AttentionShape& shape_;
  const void* pages_;
  const int32_t* table_;
  int32_t position_ = 0, begin_ = 0;
};

}  // namespace

void SpanMass(const AttentionParams& params, const WatchedRow& watched, float* mass,
              const ParallelFor& parallel) {
  const AttentionShape& shape = params.shape;
  const RowKeys keys(params, watched);
  const int64_t row = params.batch.qo_indptr[watched.seq] + watched.row;
  parallel(shape.num_heads, [&](int64_t index) {
    const int head = static_cast<int>(index);
    const int kv_head = head / (shape.num_heads / shape.num_kv_heads);
    const float* q = params.q + row * params.q_stride + index * shape.head_dim;
    const float scale = params.softmax_scale *
                        RowScale(params.policy, head, keys.end() - keys.begin(), keys.position());
    const float lse = params.stats[row * shape.num_heads + head].log_sum_exp;
    for (int32_t s = 0; s < watched.num_spans; ++s) {
      const KeySpan& span = watched.spans[s];
      const int32_t end = std::min(span.end, keys.end());
      double sum = 0;
      for (int32_t key = std::max(span.begin, keys.begin()); key < end; ++key) {
        float z = keys.Dot(q, kv_head, key) * scale;
        if (params.logit_softcap > 0) {
          z = params.logit_softcap * std::tanh(z / params.logit_softcap);
        }
        sum += std::exp(static_cast<double>(z - lse));
      }
      mass[index * watched.num_spans + s] = static_cast<float>(std::min(sum, 1.0));
    }
  });
}

}  // namespace acuity::kernels
