// A checkpoint's weights, packed for the GEMMs.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/model_spec.h"
#include "engine/model/memory.h"
#include "engine/model/model_runner.h"
#include "kernels/gemm.h"
#include "kernels/parallel.h"

namespace acuity::engine {

struct Linear {
  kernels::PackedWeight weight;
  const float* bias = nullptr;  // [weight.n] or null
};

struct NormWeights {
  const float* weight = nullptr;  // [hidden]
  const float* bias = nullptr;    // [hidden] or null
};

struct FeedForwardWeights {
  Linear in;    // gate above up: [2 * ffn, hidden]; without a gate [ffn, hidden]
  Linear down;  // [hidden, ffn]
};

// Projections that read the same input are one matrix, so that a layer has four GEMMs. What the
// spec does not ask for is null.
struct LayerWeights {
  NormWeights attention_norm, post_attention_norm, ffn_norm, post_ffn_norm;
  Linear qkv;                     // [(heads + 2 * kv_heads) * head_dim, hidden]
  const float* q_norm = nullptr;  // see QkNorm
  const float* k_norm = nullptr;
  const float* sinks = nullptr;                  // [heads]
  Linear attention_out;                          // [hidden, heads * head_dim]
  Linear router;                                 // [experts, hidden]
  std::vector<FeedForwardWeights> feed_forward;  // one, or one per expert
};

// Views into memory that `storage` owns.
struct Weights {
  kernels::PackedWeight embedding;  // [vocab, hidden]
  kernels::PackedWeight positions;  // [max_context, hidden] if positions are learned
  std::vector<LayerWeights> layers;
  NormWeights output_norm;
  Linear output;  // [vocab, hidden]; `embedding` itself when tied
  Memory storage;
  int64_t bytes() const { return storage.bytes(); }
};

// Reads and packs every tensor in parallel. InvalidArgument names a tensor that is missing or of
// another shape than `spec` says; ResourceExhausted if memory runs out; else what the checkpoint's
// ReadRows returned. Tells `on_load` how far it is.
absl::StatusOr<Weights> LoadWeights(const Checkpoint& checkpoint, const ModelSpec& spec,
                                    kernels::DType dtype, const kernels::ParallelFor& parallel,
                                    const LoadProgress& on_load);

}  // namespace acuity::engine
