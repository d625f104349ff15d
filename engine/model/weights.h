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

// Projections that read the same input are one matrix, so that a layer has four GEMMs.
struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  kernels::PackedWeight qkv;              // [(heads + 2 * kv_heads) * head_dim, hidden]
  kernels::PackedWeight attention_out;    // [hidden, heads * head_dim]
  const float* ffn_norm = nullptr;        // [hidden]
  kernels::PackedWeight gate_up;          // [2 * ffn, hidden]
  kernels::PackedWeight down;             // [hidden, ffn]
};

// Views into memory that `storage` owns.
struct Weights {
  kernels::PackedWeight embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;  // [hidden]
  kernels::PackedWeight output;        // [vocab, hidden]; `embedding` itself when tied
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
