// attention_test.cc on a GPU: the matrix, and a backend that copies everything there and back. No
// GPU has run it yet.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/attention_matrix.h"
#include "tests/kernels/cuda/device_array.h"

namespace acuity::kernels {
namespace {

using cuda::DeviceArray;

template <typename T>
std::vector<T> Host(const T* values, int64_t count) {
  return values == nullptr ? std::vector<T>() : std::vector<T>(values, values + count);
}
template <typename T>
const T* PointerOrNull(const T* host, const DeviceArray<T>& device) {
  return host == nullptr ? nullptr : device.data();
}

// Pages that the batch's sequences use, as bytes: tables hold rubbish behind their ends.
int64_t PageBytes(const AttentionParams& p) {
  int64_t pages = 0;
  for (int i = 0; i < p.batch.num_seqs; ++i) {
    const int used = (p.batch.kv_len[i] + p.shape.block_size - 1) / p.shape.block_size;
    for (int j = 0; j < used; ++j) {
      pages = std::max<int64_t>(
          pages, p.batch.block_tables[int64_t{i} * p.batch.block_table_stride + j] + 1);
    }
  }
  return pages * p.shape.num_kv_heads * p.shape.block_size * p.shape.head_dim *
         static_cast<int64_t>(SizeOf(p.shape.kv_dtype));
}

std::string RunOnGpu(const AttentionParams& params) {
  if (const char* reason = cuda::Supports(params.shape)) return reason;
  cuda::AttentionPlan plan;
  cuda::PlanAttention(params.shape, params.batch, params.window, &plan);
  const cuda::PlanCapacity capacity = cuda::CapacityOf(plan);
  std::vector<char> bytes(static_cast<size_t>(cuda::PlanBytes(capacity)));
  if (!cuda::WritePlan(plan, capacity, bytes.data())) return "a plan beyond its own capacity";

  const AttentionParams& h = params;
  const int64_t rows = h.batch.qo_indptr[h.batch.num_seqs], heads = h.shape.num_heads;
  const int64_t seqs = h.batch.num_seqs, kv_bytes = PageBytes(h);
  // The last row of a strided array ends with its heads, not with its stride.
  const auto strided = [&](int64_t stride) {
    return (rows - 1) * stride + heads * h.shape.head_dim;
  };
  DeviceArray<char> device_plan(bytes);
  DeviceArray<float> workspace(std::vector<float>(static_cast<size_t>(plan.workspace_floats + 1)));
  DeviceArray<int32_t> indptr(Host(h.batch.qo_indptr, seqs + 1)),
      kv_len(Host(h.batch.kv_len, seqs));
  DeviceArray<int32_t> tables(Host(h.batch.block_tables, seqs * h.batch.block_table_stride));
  DeviceArray<float> q(Host(h.q, strided(h.q_stride)), 1),
      out(Host(h.out, strided(h.out_stride)), 1);
  DeviceArray<char> k(Host(static_cast<const char*>(h.k_pages), kv_bytes));
  DeviceArray<char> v(Host(static_cast<const char*>(h.v_pages), kv_bytes));
  DeviceArray<RowStats> stats(Host(h.stats, rows * heads));
  DeviceArray<float> s(Host(h.policy.s, heads)), b(Host(h.policy.b, heads));
  DeviceArray<float> sinks(Host(h.sinks, heads));

  AttentionParams d = params;
  d.batch = {h.batch.num_seqs, indptr.data(), kv_len.data(), tables.data(),
             h.batch.block_table_stride};
  d.q = q.data(), d.out = out.data();
  d.k_pages = k.data(), d.v_pages = v.data();
  d.stats = h.stats == nullptr ? nullptr : stats.data();
  d.policy.s = PointerOrNull(h.policy.s, s), d.policy.b = PointerOrNull(h.policy.b, b);
  d.sinks = PointerOrNull(h.sinks, sinks);
  const char* error =
      cuda::RunAttention(d, capacity, device_plan.data(), workspace.data(), nullptr);
  if (error == nullptr) error = cuda::Finish();
  if (error != nullptr) return error;
  const std::vector<float> result = out.Read();
  std::copy(result.begin(), result.end(), h.out);
  const std::vector<RowStats> measured = stats.Read();
  std::copy(measured.begin(), measured.end(), h.stats);
  return "";
}

}  // namespace

AttentionMatrix Matrix() {
  return {{DType::kBFloat16, DType::kFloat16}, {64, 128}, {256}, {1, 3, 4, 8}, {16, 32, 128, 1024}};
}

std::vector<AttentionBackend> Backends() { return {{"gpu", RunOnGpu, RoundedTolerance}}; }

}  // namespace acuity::kernels
