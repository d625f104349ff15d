// What an architecture is, as data. One decoder (engine/model) is driven by it; readers of formats
// fill it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/layer_ops.h"
#include "kernels/logit_policy.h"

namespace acuity::engine {

// The logit policy of one layer, owning its parameters.
struct LayerPolicy {
  kernels::RowScaleKind kind = kernels::RowScaleKind::kSoftmax;
  std::vector<float> s, b;  // [num_heads] for kSsmax; b may be empty
  float length = 1;
  float strength = 0;
  std::string name = "softmax";  // as reported: "softmax", "ssmax:s=0.17", ...

  kernels::LogitPolicy view() const {
    return {kind, s.empty() ? nullptr : s.data(), b.empty() ? nullptr : b.data(), length, strength};
  }
};

// One decoder layer's attention.
struct LayerSpec {
  bool rope = true;
  int window = 0;  // 0: full causal attention
  LayerPolicy policy;
};

struct ModelSpec {
  std::string architecture;  // "llama"
  std::string display_name;  // general.name of the file
  int num_layers = 0;
  int hidden_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int ffn_size = 0;
  int vocab_size = 0;   // width of the logits
  int max_context = 0;  // trained length: prompts and outputs together may not exceed it
  float rms_epsilon = 1e-5f;
  float rope_theta = 10000;
  int rotary_dim = 0;
  kernels::RopeStyle rope_style = kernels::RopeStyle::kHalf;
  std::vector<float> rope_factors;  // [rotary_dim / 2] divisors of the frequencies, or empty
  float softmax_scale = 0;
  float attention_softcap = 0;
  bool tied_embeddings = false;
  std::vector<LayerSpec> layers;  // [num_layers]
};

}  // namespace acuity::engine
