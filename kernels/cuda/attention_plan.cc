#include "kernels/attention_plan.h"

#include <cstddef>
#include <cstring>
#include <limits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_variant.h"

namespace acuity::kernels::cuda {
namespace {

// Keys of a decode task are always split: its kernel takes one split.
SplitRules DecodeRules(const AttentionShape& shape) {
  return {kDecodeRows / GroupSize(shape), kDecodeSplitKeys, std::numeric_limits<int32_t>::max()};
}
SplitRules PrefillRules(const AttentionShape& shape, PrefillWith with) {
  const int rows = with == PrefillWith::kWarps ? kPrefillRows : kWarpgroupPrefillRows;
  return {rows / GroupSize(shape), kPrefillSplitKeys, kMinPrefillTasks};
}

// A plan on the device: counts, then the three arrays at their capacity.
constexpr int64_t kAlignment = 16;
constexpr int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
struct Offsets {
  int64_t decode, prefill, merges, end;
};
Offsets OffsetsOf(const PlanCapacity& capacity) {
  constexpr int64_t kTask = sizeof(AttentionTask), kMerge = sizeof(MergeTask);
  Offsets at;
  at.decode = Aligned(3 * sizeof(int32_t));
  at.prefill = Aligned(at.decode + capacity.decode * kTask);
  at.merges = Aligned(at.prefill + capacity.prefill * kTask);
  at.end = Aligned(at.merges + capacity.merges * kMerge);
  return at;
}

int64_t SplitsOf(int max_kv_len) { return (max_kv_len + kDecodeSplitKeys - 1) / kDecodeSplitKeys; }

}  // namespace

const char* Supports(const AttentionShape& shape) {
  if (shape.num_kv_heads < 1 || shape.num_heads < 1 || shape.num_heads % shape.num_kv_heads != 0) {
    return "num_heads must be a positive multiple of num_kv_heads";
  }
  if (GroupSize(shape) > kPrefillRows) return "num_heads / num_kv_heads must be at most 64";
  if (shape.head_dim != 64 && shape.head_dim != 128 && shape.head_dim != 256) {
    return "head_dim must be 64, 128 or 256 on a GPU";
  }
  if (shape.block_size < kStripKeys || (shape.block_size & (shape.block_size - 1)) != 0) {
    return "block_size must be a power of two, 16 or more, on a GPU";
  }
  if (shape.kv_dtype == DType::kFloat32) {
    return "kv_dtype must be bfloat16, float16 or float8 on a GPU";
  }
  return nullptr;
}

const char* SupportsWarpgroups(const AttentionShape& shape, float logit_softcap) {
  if (const char* reason = cuda::Supports(shape)) return reason;
  if (shape.kv_dtype == DType::kFloat8) {
    return "kv_dtype must be bfloat16 or float16 for prefill with warpgroups";
  }
  if (shape.head_dim > 128) return "head_dim must be 64 or 128 for prefill with warpgroups";
  if (logit_softcap > 0) return "logit_softcap must be 0 for prefill with warpgroups";
  return nullptr;
}

void PlanAttention(const AttentionShape& shape, const RaggedBatch& batch, int window,
                   AttentionPlan* plan, PrefillWith prefill_with) {
  plan->decode.clear();
  plan->prefill.clear();
  plan->merges.clear();
  plan->prefill_with = prefill_with;
  int32_t slot = 0;
  for (int32_t i = 0; i < batch.num_seqs; ++i) {
    const int32_t rows = batch.qo_indptr[i + 1] - batch.qo_indptr[i];
    if (rows == 0) continue;
    const SequenceToPlan sequence = {i, rows, batch.kv_len[i]};
    const bool few = static_cast<int64_t>(rows) * GroupSize(shape) <= kDecodeRows;
    slot =
        AppendSequence(shape, few ? DecodeRules(shape) : PrefillRules(shape, prefill_with),
                       sequence, window, slot, few ? &plan->decode : &plan->prefill, &plan->merges);
  }
  plan->workspace_floats = slot * SlotFloats(shape.head_dim);
}

PlanCapacity CapacityOf(const AttentionPlan& plan) {
  return {static_cast<int32_t>(plan.decode.size()), static_cast<int32_t>(plan.prefill.size()),
          static_cast<int32_t>(plan.merges.size()), plan.prefill_with};
}

PlanCapacity DecodeCapacity(const AttentionShape& shape, int num_seqs, int max_kv_len) {
  const int32_t rows = num_seqs * shape.num_kv_heads;
  const auto tasks = static_cast<int32_t>(rows * SplitsOf(max_kv_len));
  if (GroupSize(shape) > kDecodeRows) {
    // One row of many heads is a prefill of at most as many splits.
    return {0, tasks, rows};
  }
  return {tasks, 0, rows};
}

int64_t DecodeWorkspaceFloats(const AttentionShape& shape, int num_seqs, int max_kv_len) {
  return num_seqs * shape.num_heads * SplitsOf(max_kv_len) * SlotFloats(shape.head_dim);
}

int64_t PlanBytes(const PlanCapacity& capacity) { return OffsetsOf(capacity).end; }

bool WritePlan(const AttentionPlan& plan, const PlanCapacity& capacity, void* bytes) {
  const PlanCapacity counts = CapacityOf(plan);
  if (counts.decode > capacity.decode || counts.prefill > capacity.prefill ||
      counts.merges > capacity.merges || counts.prefill_with != capacity.prefill_with) {
    return false;
  }
  auto* base = static_cast<std::byte*>(bytes);
  const Offsets at = OffsetsOf(capacity);
  const int32_t header[] = {counts.decode, counts.prefill, counts.merges};
  std::memcpy(base, header, sizeof(header));
  const auto write = [base](int64_t offset, const auto& tasks) {
    if (!tasks.empty()) std::memcpy(base + offset, tasks.data(), tasks.size() * sizeof(tasks[0]));
  };
  write(at.decode, plan.decode);
  write(at.prefill, plan.prefill);
  write(at.merges, plan.merges);
  return true;
}

DevicePlan ReadPlan(const PlanCapacity& capacity, const void* plan) {
  const auto* base = static_cast<const std::byte*>(plan);
  const Offsets at = OffsetsOf(capacity);
  return {reinterpret_cast<const int32_t*>(base),
          reinterpret_cast<const AttentionTask*>(base + at.decode),
          reinterpret_cast<const AttentionTask*>(base + at.prefill),
          reinterpret_cast<const MergeTask*>(base + at.merges)};
}

}  // namespace acuity::kernels::cuda
