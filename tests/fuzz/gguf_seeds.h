// The files that fuzzing starts from: every tensor type, every kind of value, and files refused
// late.
#pragma once

#include <vector>

#include "tests/engine/loader/gguf_builder.h"

namespace acuity::engine::testing {

inline std::vector<Bytes> GgufSeeds() {
  std::vector<Bytes> seeds = {TinyLlama().Build()};
  for (const TensorType& type : SupportedTensorTypes()) {  // the embeddings in each type
    GgufBuilder b = TinyLlama();
    if (type.elements_per_block <= 32) b.tensor("token_embd.weight").type = type.id;
    if (type.elements_per_block > 32) b.AddTensor("extra", {256}, type.id);  // refused as unread
    seeds.push_back(b.Build());
  }
  GgufBuilder optional = TinyLlama();
  optional.version = 2;
  optional.alignment = 64;
  optional.SetUint32("general.alignment", 64);
  optional.SetUint32("llama.attention.key_length", 16);
  optional.SetUint32("llama.attention.value_length", 16);
  optional.SetUint32("llama.expert_count", 0);
  optional.SetString("llama.rope.scaling.type", "none");
  optional.SetUint32("tokenizer.ggml.eot_token_id", 2);
  optional.SetNumber<uint64_t>("x.u64", GgufType::kUint64, 1);
  optional.SetNumber<double>("x.f64", GgufType::kFloat64, 1);
  optional.SetInt32s("x.i32s", {1, 2, 3});
  optional.AddTensor("output.weight", {32, 8}, 8);
  optional.AddTensor("rope_freqs.weight", {8}, 0);
  seeds.push_back(optional.Build());
  seeds.push_back({'G', 'G', 'U', 'F', 3, 0, 0, 0});
  return seeds;
}

}  // namespace acuity::engine::testing
