// A model's weights on a GPU: matrices row by row in bfloat16, vectors in float32.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/gpu/device.h"
#include "engine/loader/model_spec.h"
#include "engine/model/weights.h"
#include "kernels/layer_ops.h"
#include "kernels/logit_policy.h"
#include "kernels/parallel.h"

namespace acuity::engine {

// All pointers are the device's, into GpuWeights::storage. What the model lacks is null.
struct GpuLinear {
  const void* weight = nullptr;  // [n, k]
  const void* bias = nullptr;    // [n], bfloat16
  int64_t n = 0, k = 0;
};

struct GpuNorm {
  const float* weight = nullptr;  // [hidden]; null: there is no norm
  const float* bias = nullptr;
};

struct GpuFeedForward {
  GpuLinear in, down;  // as FeedForwardWeights
};

struct GpuLayer {
  GpuNorm attention_norm, post_attention_norm, ffn_norm, post_ffn_norm;
  GpuLinear qkv, attention_out, router;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  const float* sinks = nullptr;
  kernels::RopeParams rope;  // rotary_dim 0: none
  kernels::LogitPolicy policy;
  std::vector<GpuFeedForward> feed_forward;  // one, or one per expert
};

struct GpuWeights {
  const void* embedding = nullptr;   // [vocab, hidden]
  const void* positions = nullptr;   // [max_context, hidden] if positions are learned
  const int32_t* windows = nullptr;  // [num_layers]
  std::vector<GpuLayer> layers;
  GpuNorm output_norm;
  GpuLinear output;  // the embedding itself when tied
  DeviceMemory storage;
};

// Copies what LoadWeights packed, and the spec's rotary frequencies, windows and policies. The
// packed bfloat16 matrices are unpacked (with `parallel`) into two blocks of pinned memory in turn,
// one of which the device copies while the other is filled. ResourceExhausted if the device has too
// little memory, or the device's failure.
absl::StatusOr<GpuWeights> UploadWeights(const Weights& weights, const ModelSpec& spec,
                                         const kernels::ParallelFor& parallel, Device* device);

}  // namespace acuity::engine
