// What the config.json of most architectures have in common.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/hf_config.h"
#include "engine/loader/model_spec.h"

namespace acuity::engine {

// Names of keys, and the values that transformers takes if they are absent.
struct HfFields {
  std::string_view layers = "num_hidden_layers";
  std::string_view hidden = "hidden_size";
  std::string_view heads = "num_attention_heads";
  std::string_view kv_heads = "num_key_value_heads";  // empty: as many as heads
  std::optional<int64_t> absent_kv_heads = 0;         // 0: as many as heads; none: required
  int64_t absent_head_dim = 0;                        // 0: hidden / heads
  std::string_view ffn = "intermediate_size";
  int64_t absent_ffn_ratio = 0;  // ffn / hidden; 0: required
  std::string_view context = "max_position_embeddings";
  std::string_view norm_epsilon = "rms_norm_eps";
  float absent_norm_epsilon = 1e-6f;
  std::string_view activation = "hidden_act";
  std::string_view absent_activation = "silu";
  bool absent_tied = false;
};

// Sizes, norm epsilon, activation, tied embeddings; softmax_scale = 1 / sqrt(head_dim), layers with
// full attention. Marks the keys that every config has and that change nothing, and refuses those
// that would.
absl::Status ReadCommonFields(const HfConfig& config, const HfFields& fields, ModelSpec* spec);

// `key` to both the projections into Q, K, V and the one out of the attention.
absl::Status ReadAttentionBias(const HfConfig& config, std::string_view key, bool absent,
                               ModelSpec* spec);

// sliding_window, or 0 if there is none. `absent`: if the key is not there at all; null is none.
absl::StatusOr<int> ReadWindow(const HfConfig& config, int absent);

// The windows of the layers that layer_types says are sliding, or if it is absent, those for which
// sliding(layer) is true.
template <typename Function>
absl::Status ReadLayerWindows(const HfConfig& config, int window, Function sliding,
                              ModelSpec* spec);
absl::StatusOr<std::optional<std::vector<bool>>> ReadSlidingLayers(const HfConfig& config,
                                                                   int num_layers);

// Logit policies that a config names (see kernels/logit_policy.h), at most one of: use_logn_attn
// with seq_length; attn_temperature_tuning with floor_scale and attn_scale, for the layers without
// rotary embedding; llama_4_scaling_beta in rope_parameters; scalable_softmax, whose layers are
// left kSsmax without s: that is in tensors. REQUIRES the layers' ropes.
absl::Status ReadLogitPolicy(const HfConfig& config, ModelSpec* spec);

// ---- implementation ----

template <typename Function>
absl::Status ReadLayerWindows(const HfConfig& config, int window, Function sliding,
                              ModelSpec* spec) {
  const auto listed = ReadSlidingLayers(config, spec->num_layers);
  if (!listed.ok()) return listed.status();
  for (int layer = 0; layer < spec->num_layers; ++layer) {
    const bool slides =
        listed->has_value() ? (**listed)[static_cast<size_t>(layer)] : sliding(layer);
    if (slides) spec->layers[static_cast<size_t>(layer)].window = window;
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
