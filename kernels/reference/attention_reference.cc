#include "kernels/reference/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/dtype.h"

namespace acuity::kernels {
namespace {

// One query row of one head.
struct Row {
  int seq;
  int head;
  int64_t index;     // in q
  int64_t position;  // absolute
};

int64_t PageOffset(const AttentionParams& params, const Row& row, int64_t key) {
  const AttentionShape& shape = params.shape;
  const int kv_head = row.head / (shape.num_heads / shape.num_kv_heads);
  const RaggedBatch& batch = params.batch;
  const int64_t page = batch.block_tables[static_cast<int64_t>(row.seq) * batch.block_table_stride +
                                          key / shape.block_size];
  const int64_t slot = (page * shape.num_kv_heads + kv_head) * shape.block_size;
  return (slot + key % shape.block_size) * shape.head_dim;
}

double Element(DType dtype, const void* pages, int64_t offset) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(pages)[offset];
  if (dtype == DType::kFloat8) return Float8ToFloat(static_cast<const uint8_t*>(pages)[offset]);
  const uint16_t bits = static_cast<const uint16_t*>(pages)[offset];
  return dtype == DType::kBFloat16 ? BFloat16ToFloat(bits) : Float16ToFloat(bits);
}

// The row scale again, in double and from its definition.
double ExactRowScale(const LogitPolicy& policy, int head, double n, double position) {
  switch (policy.kind) {
    case RowScaleKind::kSoftmax:
      return 1;
    case RowScaleKind::kSsmax:
      return policy.s[head] * std::log(n) + (policy.b == nullptr ? 0.0 : policy.b[head]);
    case RowScaleKind::kLogN:
      return n > policy.length ? std::log(n) / std::log(static_cast<double>(policy.length)) : 1;
    case RowScaleKind::kLlama4:
      return 1 + policy.strength * std::log1p(std::floor((position + 1) / policy.length));
    case RowScaleKind::kMinistral:
      return 1 + policy.strength * std::log(1 + std::floor(position / policy.length));
    case RowScaleKind::kSharpen:
      return n <= policy.length
                 ? 1
                 : 1 + (policy.b == nullptr ? 0.0 : policy.b[head]) +
                       policy.s[head] * (std::log(n) - std::log(double{policy.length}));
  }
  return 1;
}

std::vector<double> Logits(const AttentionParams& params, const Row& row, int64_t first_key) {
  const int dim = params.shape.head_dim;
  const float* q = params.q + row.index * params.q_stride + static_cast<int64_t>(row.head) * dim;
  const double n = static_cast<double>(row.position + 1 - first_key);
  const double scale = params.softmax_scale *
                       ExactRowScale(params.policy, row.head, n, static_cast<double>(row.position));
  std::vector<double> logits;
  for (int64_t key = first_key; key <= row.position; ++key) {
    const int64_t offset = PageOffset(params, row, key);
    double dot = 0;
    for (int d = 0; d < dim; ++d) {
      dot += q[d] * Element(params.shape.kv_dtype, params.k_pages, offset + d);
    }
    double z = dot * scale;
    if (params.logit_softcap > 0) {
      z = params.logit_softcap * std::tanh(z / params.logit_softcap);
    }
    logits.push_back(z);
  }
  return logits;
}

void RunRow(const AttentionParams& params, const Row& row, double* out, ReferenceStats* stats) {
  const int dim = params.shape.head_dim;
  const int64_t first_key =
      params.window > 0 ? std::max<int64_t>(0, row.position + 1 - params.window) : 0;
  const std::vector<double> logits = Logits(params, row, first_key);
  const double high = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double z : logits) sum += std::exp(z - high);
  stats->log_sum_exp = high + std::log(sum);
  stats->max_probability = 1 / sum;
  double real_share = 1;
  if (params.sinks != nullptr) {
    const double excess = params.sinks[row.head] - stats->log_sum_exp;
    real_share = 1 / (1 + std::exp(excess));
    stats->sink_probability = 1 - real_share;
  }
  std::fill(out, out + dim, 0.0);
  for (size_t j = 0; j < logits.size(); ++j) {
    const double p = std::exp(logits[j] - stats->log_sum_exp);
    if (p > 0) stats->entropy -= p * (logits[j] - stats->log_sum_exp);
    stats->mean_logit += p * logits[j];
    const int64_t offset = PageOffset(params, row, first_key + static_cast<int64_t>(j));
    for (int d = 0; d < dim; ++d) {
      out[d] += real_share * p * Element(params.shape.kv_dtype, params.v_pages, offset + d);
    }
  }
}

}  // namespace

ReferenceResult AttentionReference(const AttentionParams& params) {
  const RaggedBatch& batch = params.batch;
  const int heads = params.shape.num_heads, dim = params.shape.head_dim;
  const int64_t rows = batch.num_seqs > 0 ? batch.qo_indptr[batch.num_seqs] : 0;
  ReferenceResult result;
  result.out.resize(rows * heads * dim);
  result.stats.resize(rows * heads);
  for (int seq = 0; seq < batch.num_seqs; ++seq) {
    const int begin = batch.qo_indptr[seq], end = batch.qo_indptr[seq + 1];
    for (int64_t row = begin; row < end; ++row) {
      for (int head = 0; head < heads; ++head) {
        const int64_t position = batch.kv_len[seq] - end + row;
        RunRow(params, {seq, head, row, position}, &result.out[(row * heads + head) * dim],
               &result.stats[row * heads + head]);
      }
    }
  }
  return result;
}

}  // namespace acuity::kernels
