#include "tests/kernels/cuda/device_attention.h"

#include <algorithm>

namespace acuity::kernels::cuda {
namespace {

template <typename T>
std::vector<T> Host(const T* values, int64_t count) {
  return values == nullptr ? std::vector<T>() : std::vector<T>(values, values + count);
}
template <typename T>
T* PointerOrNull(const T* host, const DeviceArray<T>& device) {
  return host == nullptr ? nullptr : device.data();
}

int64_t Rows(const AttentionParams& p) { return p.batch.qo_indptr[p.batch.num_seqs]; }

// The last row of a strided array ends with its heads, not with its stride.
int64_t Strided(const AttentionParams& p, int64_t stride) {
  return (Rows(p) - 1) * stride + int64_t{p.shape.num_heads} * p.shape.head_dim;
}

// Pages that the batch's sequences use, as bytes: tables hold rubbish behind their ends.
std::vector<char> Pages(const AttentionParams& p, const void* pages) {
  int64_t count = 0;
  for (int i = 0; i < p.batch.num_seqs; ++i) {
    const int used = (p.batch.kv_len[i] + p.shape.block_size - 1) / p.shape.block_size;
    for (int j = 0; j < used; ++j) {
      count = std::max<int64_t>(
          count, p.batch.block_tables[int64_t{i} * p.batch.block_table_stride + j] + 1);
    }
  }
  return Host(static_cast<const char*>(pages), count * p.shape.num_kv_heads * p.shape.block_size *
                                                   p.shape.head_dim *
                                                   static_cast<int64_t>(SizeOf(p.shape.kv_dtype)));
}

}  // namespace

DeviceAttention::DeviceAttention(const AttentionParams& h)
    : host_(h),
      params_(h),
      indptr_(Host(h.batch.qo_indptr, h.batch.num_seqs + 1)),
      kv_len_(Host(h.batch.kv_len, h.batch.num_seqs)),
      tables_(Host(h.batch.block_tables, int64_t{h.batch.num_seqs} * h.batch.block_table_stride)),
      q_(Host(h.q, Strided(h, h.q_stride)), 1),
      out_(Host(h.out, Strided(h, h.out_stride)), 1),
      s_(Host(h.policy.s, h.shape.num_heads)),
      b_(Host(h.policy.b, h.shape.num_heads)),
      sinks_(Host(h.sinks, h.shape.num_heads)),
      k_(Pages(h, h.k_pages)),
      v_(Pages(h, h.v_pages)),
      stats_(Host(h.stats, Rows(h) * h.shape.num_heads)) {
  params_.batch.qo_indptr = indptr_.data();
  params_.batch.kv_len = kv_len_.data();
  params_.batch.block_tables = tables_.data();
  params_.q = q_.data(), params_.out = out_.data();
  params_.k_pages = k_.data(), params_.v_pages = v_.data();
  params_.stats = PointerOrNull(h.stats, stats_);
  params_.policy.s = PointerOrNull(h.policy.s, s_);
  params_.policy.b = PointerOrNull(h.policy.b, b_);
  params_.sinks = PointerOrNull(h.sinks, sinks_);
}

void DeviceAttention::ReadBack() const {
  const std::vector<float> out = out_.Read();
  std::copy(out.begin(), out.end(), host_.out);
  const std::vector<RowStats> stats = stats_.Read();
  std::copy(stats.begin(), stats.end(), host_.stats);
}

}  // namespace acuity::kernels::cuda
