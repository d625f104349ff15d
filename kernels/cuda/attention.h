// Attention on a GPU: the API of kernels/attention.h with the host and the device apart.
//
//   Supports(shape) -> PlanAttention(host arrays) -> WritePlan(pinned memory) -> one copy to the
//   device -> RunAttention(device arrays), any number of times: the layers of a step share a plan.
//
// RunAttention reads nothing but device memory and its arguments, allocates nothing and never
// waits, so that it can be captured in a CUDA graph: sized for a capacity, replayed with any plan
// that fits.
//
// Results: bit-equal in any batch, under any capacity, with statistics on or off. Close, not equal
// (see docs/kernels.md), where the same row is computed by another kernel or over other splits,
// that is in another chunk of its prompt. q and, before the product with V, the softmax's weights
// are rounded to the KV type (beside float8 to float16); everything else is float32.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace acuity::kernels::cuda {

// Null if a kernel is compiled for this, else a static sentence naming the field and what is
// allowed.
const char* Supports(const AttentionShape& shape);

// What multiplies in prefill. kWarps: mma.sync, on any GPU that this project supports. kWarpgroups:
// wgmma, for compute capability 9.0 alone; no GPU has run it yet, so nothing but an explicit
// request chooses it. The same results, but for the order of float32 additions.
enum class PrefillWith : uint8_t { kWarps, kWarpgroups };

// Null if the kernel on warpgroups is compiled for this (which says nothing of the GPU), else why
// not.
const char* SupportsWarpgroups(const AttentionShape& shape, float logit_softcap);

// Reused from step to step: vectors keep their capacity.
struct AttentionPlan {
  std::vector<AttentionTask> decode;   // at most 16 packed rows and one split of the keys each
  std::vector<AttentionTask> prefill;  // at most 64 packed rows each, 128 with warpgroups
  std::vector<MergeTask> merges;
  int64_t workspace_floats = 0;
  PrefillWith prefill_with = PrefillWith::kWarps;
};

// Every (row, visible key) is covered exactly once; how a sequence is cut depends on it alone.
// `window` as in AttentionParams. Pure; clears and fills *plan.
void PlanAttention(const AttentionShape& shape, const RaggedBatch& batch, int window,
                   AttentionPlan* plan, PrefillWith prefill_with = PrefillWith::kWarps);

// How many blocks a launch has, and so how large a plan it can run; and of which kernel.
struct PlanCapacity {
  int32_t decode = 0, prefill = 0, merges = 0;
  PrefillWith prefill_with = PrefillWith::kWarps;
};
// Exactly this plan.
PlanCapacity CapacityOf(const AttentionPlan& plan);
// Any batch of up to num_seqs sequences of one new row and up to max_kv_len keys each, for a graph;
// and the workspace, in floats, that it needs at most.
PlanCapacity DecodeCapacity(const AttentionShape& shape, int num_seqs, int max_kv_len);
int64_t DecodeWorkspaceFloats(const AttentionShape& shape, int num_seqs, int max_kv_len);

// A plan as the device reads it: PlanBytes(capacity) bytes, aligned to 16. False, and nothing
// written, if the plan is larger than the capacity or for another kernel.
int64_t PlanBytes(const PlanCapacity& capacity);
[[nodiscard]] bool WritePlan(const AttentionPlan& plan, const PlanCapacity& capacity, void* bytes);

// Every pointer, those in `params` and its batch too, is the device's; k_pages and v_pages are
// aligned to 16 bytes, `workspace` has the plan's workspace_floats. `stream` is a cudaStream_t.
// Null, or why it could not be launched; an error in mid-flight shows up where the stream is waited
// for.
[[nodiscard]] const char* RunAttention(const AttentionParams& params, const PlanCapacity& capacity,
                                       const void* plan, float* workspace, void* stream);

}  // namespace acuity::kernels::cuda
