#include "engine/gpu/step_inputs.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "engine/base/check.h"

namespace acuity::engine {
namespace {

using kernels::SampleRow;
using kernels::cuda::WatchedSpan;

constexpr int64_t kAlignment = 16;
// The smallest bucket of keys: one split of a decoding sequence (kernels/cuda/attention_variant.h).
constexpr int kLeastBucketKeys = 512;

bool DecodesOnly(const Batch& batch) {
  if (batch.num_rows() == 0 || batch.num_rows() != batch.num_seqs()) return false;
  if (!batch.watched.empty()) return false;
  if (batch.logit_rows.size() + batch.draws.size() != batch.tokens.size()) return false;
  for (int i = 0; i < batch.num_seqs(); ++i) {
    if (batch.qo_indptr[i + 1] - batch.qo_indptr[i] != 1) return false;
  }
  return true;
}

template <typename T>
void Fill(std::byte* to, int64_t offset, const std::vector<T>& values, int64_t size, T padding) {
  T* out = reinterpret_cast<T*>(to + offset);
  std::copy(values.begin(), values.end(), out);
  std::fill(out + values.size(), out + size, padding);
}

}  // namespace

StepInputs::StepInputs(kernels::AttentionShape attention, int num_layers, std::vector<int> windows,
                       int max_bucket)
    : attention_(attention),
      num_layers_(num_layers),
      windows_(std::move(windows)),
      max_bucket_(max_bucket),
      plans_(windows_.size()) {}

void StepInputs::Plan(const Batch& batch, std::span<const int32_t> zeroed_blocks) {
  const kernels::RaggedBatch ragged = {batch.num_seqs(), batch.qo_indptr.data(),
                                       batch.kv_len.data(), batch.block_tables.data(),
                                       batch.block_table_stride};
  shape_.rows = batch.num_rows();
  shape_.seqs = batch.num_seqs();
  shape_.block_table_stride = batch.block_table_stride;
  shape_.bucket_keys = 0;
  shape_.stats = batch.needs_stats();
  shape_.measured = static_cast<int>(batch.measured.size());
  shape_.sums = kernels::SumsOf(batch.measured, num_layers_, attention_.num_heads);
  shape_.draws = static_cast<int>(batch.draws.size());
  shape_.logit_rows = static_cast<int>(batch.logit_rows.size()) + shape_.draws;
  shape_.hidden_rows = static_cast<int>(batch.hidden_rows.size());
  shape_.keeps_all = std::max({batch.logit_rows.size(), batch.draws.size(),
                               batch.hidden_rows.size()}) == batch.tokens.size();
  shape_.zeroed_blocks = static_cast<int>(zeroed_blocks.size());
  kernels::cuda::ListSpans(batch.watched.data(), static_cast<int>(batch.watched.size()),
                           attention_.num_heads, &spans_);
  shape_.spans = static_cast<int>(spans_.spans.size());
  shape_.longest_span = spans_.longest;
  shape_.span_masses = spans_.masses;
  shape_.plans.clear();
  shape_.workspace_floats = 0;
  for (size_t i = 0; i < windows_.size(); ++i) {
    kernels::cuda::PlanAttention(attention_, ragged, windows_[i], &plans_[i]);
    shape_.plans.push_back(kernels::cuda::CapacityOf(plans_[i]));
    shape_.workspace_floats = std::max(shape_.workspace_floats, plans_[i].workspace_floats);
  }
  if (DecodesOnly(batch) && batch.num_seqs() <= max_bucket_) SetBucket(batch);
  LayOut();
  draw_places_.clear();
  for (const Draw& draw : batch.draws) {
    draw_places_.push_back(shape_.PlaceOf(draw.row, draw_places_.size()));
  }
}

void StepInputs::SetBucket(const Batch& batch) {
  const int longest = *std::max_element(batch.kv_len.begin(), batch.kv_len.end());
  const unsigned keys = std::bit_ceil(static_cast<unsigned>(std::max(longest, kLeastBucketKeys)));
  const unsigned seqs = std::bit_ceil(static_cast<unsigned>(batch.num_seqs()));
  shape_.bucket_keys = static_cast<int>(keys);
  shape_.seqs = std::min(static_cast<int>(seqs), max_bucket_);
  shape_.rows = shape_.logit_rows = shape_.draws = shape_.seqs;
  if (shape_.stats) shape_.measured = shape_.seqs;
  shape_.keeps_all = true;
  shape_.block_table_stride =
      (shape_.bucket_keys + attention_.block_size - 1) / attention_.block_size;
  for (kernels::cuda::PlanCapacity& plan : shape_.plans) {
    plan = kernels::cuda::DecodeCapacity(attention_, shape_.seqs, shape_.bucket_keys);
  }
  shape_.workspace_floats =
      kernels::cuda::DecodeWorkspaceFloats(attention_, shape_.seqs, shape_.bucket_keys);
}

void StepInputs::LayOut() {
  int64_t at = 0;
  const auto place = [&at](int64_t count, size_t size) {
    const int64_t offset = at;
    at += (count * static_cast<int64_t>(size) + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  };
  offsets_.tokens = place(shape_.rows, sizeof(int32_t));
  offsets_.positions = place(shape_.rows, sizeof(int32_t));
  offsets_.slots = place(shape_.rows, sizeof(int64_t));
  offsets_.qo_indptr = place(shape_.seqs + 1, sizeof(int32_t));
  offsets_.kv_len = place(shape_.seqs, sizeof(int32_t));
  offsets_.block_tables = place(int64_t{shape_.seqs} * shape_.block_table_stride, sizeof(int32_t));
  const int kept = shape_.keeps_all ? 0 : shape_.logit_rows + shape_.hidden_rows;
  offsets_.kept_rows = place(kept, sizeof(int32_t));
  offsets_.measured = place(shape_.measured, sizeof(kernels::MeasuredRows));
  offsets_.draws = place(shape_.draws, sizeof(SampleRow));
  offsets_.spans = place(shape_.spans, sizeof(WatchedSpan));
  offsets_.plans.clear();
  for (const kernels::cuda::PlanCapacity& plan : shape_.plans) {
    offsets_.plans.push_back(place(kernels::cuda::PlanBytes(plan), 1));
  }
  // Last: a bucket's other arrays lie where its graph reads them, whether blocks are zeroed or not.
  offsets_.zeroed_blocks = place(shape_.zeroed_blocks, sizeof(int32_t));
  offsets_.end = at;
}

void StepInputs::Write(const Batch& batch, std::span<const int32_t> zeroed_blocks,
                       std::span<const int32_t> drawn_before, std::byte* to) const {
  const int64_t rows = shape_.rows, seqs = shape_.seqs;
  Fill(to, offsets_.tokens, batch.tokens, rows, -1);
  auto* tokens = reinterpret_cast<int32_t*>(to + offsets_.tokens);
  for (int i = 0; i < batch.num_rows(); ++i) {
    if (tokens[i] <= Batch::DrawnBefore(0)) {
      tokens[i] = Batch::DrawnBefore(drawn_before[Batch::DrawnBefore(0) - tokens[i]]);
    }
  }
  Fill(to, offsets_.positions, batch.positions, rows, 0);
  Fill(to, offsets_.slots, batch.slots, rows, int64_t{-1});
  Fill(to, offsets_.qo_indptr, batch.qo_indptr, seqs + 1, batch.qo_indptr.back());
  Fill(to, offsets_.kv_len, batch.kv_len, seqs, 0);
  auto* table = reinterpret_cast<int32_t*>(to + offsets_.block_tables);
  const int used = std::min(batch.block_table_stride, shape_.block_table_stride);
  for (int i = 0; i < batch.num_seqs(); ++i) {
    std::copy_n(batch.block_tables.begin() + int64_t{i} * batch.block_table_stride, used,
                table + int64_t{i} * shape_.block_table_stride);
  }
  WriteOutputs(batch, to);
  Fill(to, offsets_.measured, batch.measured, shape_.measured, kernels::MeasuredRows{});
  std::copy(spans_.spans.begin(), spans_.spans.end(),
            reinterpret_cast<WatchedSpan*>(to + offsets_.spans));
  for (size_t i = 0; i < plans_.size(); ++i) {
    ACUITY_CHECK(kernels::cuda::WritePlan(plans_[i], shape_.plans[i], to + offsets_.plans[i]));
  }
  std::copy(zeroed_blocks.begin(), zeroed_blocks.end(),
            reinterpret_cast<int32_t*>(to + offsets_.zeroed_blocks));
}

void StepInputs::WriteOutputs(const Batch& batch, std::byte* to) const {
  if (!shape_.keeps_all) {
    auto* kept = reinterpret_cast<int32_t*>(to + offsets_.kept_rows);
    kept = std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), kept);
    for (const Draw& draw : batch.draws) *kept++ = draw.row;
    std::copy(batch.hidden_rows.begin(), batch.hidden_rows.end(), kept);
  }
  auto* draws = reinterpret_cast<SampleRow*>(to + offsets_.draws);
  std::fill_n(draws, shape_.draws, SampleRow{.temperature = 0});
  for (size_t i = 0; i < batch.draws.size(); ++i) draws[draw_places_[i]] = batch.draws[i].sample;
}

}  // namespace acuity::engine
