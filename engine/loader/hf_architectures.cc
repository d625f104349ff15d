#include "engine/loader/hf_architectures.h"

#include <array>
#include <cmath>
#include <utility>

#include "engine/base/limits.h"
#include "engine/loader/hf_fields.h"
#include "engine/loader/hf_names.h"
#include "engine/loader/hf_rope.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr float kMaxScale = 1e6f;
constexpr int kWindow = 4096;  // what transformers takes for an absent sliding_window

bool Always(int) { return true; }

absl::Status ReadLlama(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, {}, spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->ffn_bias, config.Bool("mlp_bias", false));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadMistral(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, {.absent_kv_heads = 8}, spec));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  for (LayerSpec& layer : spec->layers) layer.window = window;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadMinistral(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, {.absent_kv_heads = 8}, spec));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(config, window, Always, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadMinistral3(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(
      ReadCommonFields(config, {.absent_kv_heads = 8, .absent_norm_epsilon = 1e-5f}, spec));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {.default_theta = 1e6f}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, 0));
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(config, window, Always, spec));
  return ReadLogitPolicy(config, spec);
}

// Qwen's: windows from layer max_window_layers on, if use_sliding_window.
absl::Status ReadQwenWindows(const HfConfig& config, ModelSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(const bool use, config.Bool("use_sliding_window", false));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  ACUITY_ASSIGN_OR_RETURN(const int64_t first,
                          config.Integer("max_window_layers", 0, kMaxContextTokens, 28));
  return ReadLayerWindows(
      config, use ? window : 0, [first](int layer) { return layer >= first; }, spec);
}

absl::Status ReadQwen2(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, {.absent_kv_heads = 32}, spec));
  spec->qkv_bias = true;
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_RETURN_IF_ERROR(ReadQwenWindows(config, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadQwen3(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(
      ReadCommonFields(config, {.absent_kv_heads = 32, .absent_head_dim = 128}, spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  spec->qk_norm = QkNorm::kPerHead;
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_RETURN_IF_ERROR(ReadQwenWindows(config, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadQwen3Moe(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(
      ReadCommonFields(config, {.absent_kv_heads = 4, .ffn = "moe_intermediate_size"}, spec));
  config.Ignore({"intermediate_size"});  // of layers without experts: there must be none
  ACUITY_RETURN_IF_ERROR(config.MustBeOff("mlp_only_layers"));
  ACUITY_RETURN_IF_ERROR(config.Integer("decoder_sparse_step", 1, 1, 1).status());
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  spec->qk_norm = QkNorm::kPerHead;
  ACUITY_ASSIGN_OR_RETURN(spec->experts.count, config.Integer("num_experts", 1, 1024));
  ACUITY_ASSIGN_OR_RETURN(spec->experts.per_token,
                          config.Integer("num_experts_per_tok", 1, spec->experts.count));
  ACUITY_ASSIGN_OR_RETURN(spec->experts.normalised, config.Bool("norm_topk_prob", false));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_ASSIGN_OR_RETURN(const bool use, config.Bool("use_sliding_window", false));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  config.Ignore({"max_window_layers"});  // transformers slides every layer or none
  for (LayerSpec& layer : spec->layers) layer.window = use ? window : 0;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadMixtral(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(
      ReadCommonFields(config, {.absent_kv_heads = 8, .absent_norm_epsilon = 1e-5f}, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->experts.count, config.Integer("num_local_experts", 1, 1024));
  ACUITY_ASSIGN_OR_RETURN(spec->experts.per_token,
                          config.Integer("num_experts_per_tok", 1, spec->experts.count));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {.default_theta = 1e6f}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, 0));
  for (LayerSpec& layer : spec->layers) layer.window = window;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadGptOss(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(
      config, {.absent_kv_heads = 8, .absent_head_dim = 64, .absent_norm_epsilon = 1e-5f}, spec));
  config.Ignore({"swiglu_limit", "experts_per_token", "initial_context_length"});
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", true, spec));
  spec->sinks = true;
  spec->activation = kernels::Activation::kClampedSwiglu;
  spec->ffn_bias = true;
  spec->experts.router_bias = true;
  ACUITY_ASSIGN_OR_RETURN(spec->experts.count, config.Integer("num_local_experts", 1, 1024));
  ACUITY_ASSIGN_OR_RETURN(spec->experts.per_token,
                          config.Integer("num_experts_per_tok", 1, spec->experts.count));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {.default_theta = 150000}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, 128));
  return ReadLayerWindows(
      config, window, [](int layer) { return layer % 2 == 0; }, spec);
}

absl::Status ReadSmolLm3(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(
      ReadCommonFields(config, {.absent_kv_heads = 4, .absent_tied = true}, spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->ffn_bias, config.Bool("mlp_bias", false));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {.default_theta = 2e6f}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int64_t interval,
                          config.Integer("no_rope_layer_interval", 1, kMaxContextTokens, 4));
  std::vector<float> rope;  // 1 or 0 per layer
  if (config.Has("no_rope_layers")) {
    ACUITY_ASSIGN_OR_RETURN(
        rope, config.Numbers("no_rope_layers", static_cast<size_t>(spec->num_layers), 0, 1));
  }
  for (int layer = 0; layer < spec->num_layers; ++layer) {
    const size_t i = static_cast<size_t>(layer);
    const bool rotates = rope.empty() ? (layer + 1) % interval != 0 : rope[i] != 0;
    if (!rotates) spec->layers[i].rope = LayerSpec::kNoRope;
  }
  ACUITY_ASSIGN_OR_RETURN(const bool use, config.Bool("use_sliding_window", false));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, 0));
  config.Ignore({"max_window_layers"});
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(
      config, use ? window : 0,
      [spec](int layer) {
        return spec->layers[static_cast<size_t>(layer)].rope == LayerSpec::kNoRope;
      },
      spec));
  return ReadLogitPolicy(config, spec);
}

// What all Gemmas share.
absl::Status ReadGemmaFields(const HfConfig& config, const HfFields& fields, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, fields, spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  spec->embedding_scale = std::sqrt(static_cast<float>(spec->hidden_size));
  return ReadRope(config, {}, spec);
}

absl::Status ReadGemma(const HfConfig& config, ModelSpec* spec) {
  HfFields fields = {.absent_kv_heads = 16,
                     .absent_head_dim = 256,
                     .absent_activation = "gelu_pytorch_tanh",
                     .absent_tied = true};
  config.Ignore({"hidden_activation"});  // transformers reads hidden_act
  return ReadGemmaFields(config, fields, spec);
}

absl::Status ReadGemma2And3(const HfConfig& config, const HfFields& fields, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadGemmaFields(config, fields, spec));
  spec->post_norm = true;
  ACUITY_ASSIGN_OR_RETURN(const float scalar,
                          config.Number("query_pre_attn_scalar", 1e-3f, kMaxScale, 256.0f));
  spec->softmax_scale = 1 / std::sqrt(scalar);
  return absl::OkStatus();
}

// A softcap; `absent` if the key is not there at all, 0 if it is null.
absl::StatusOr<float> ReadSoftcap(const HfConfig& config, const char* key, float absent) {
  return config.Number(key, 1e-3f, kMaxScale, config.HasKey(key) ? 0.0f : absent);
}

absl::Status ReadGemma2(const HfConfig& config, ModelSpec* spec) {
  const HfFields fields = {.absent_kv_heads = 4,
                           .absent_head_dim = 256,
                           .activation = "hidden_activation",
                           .absent_activation = "gelu_pytorch_tanh",
                           .absent_tied = true};
  config.Ignore({"hidden_act"});  // transformers reads hidden_activation
  ACUITY_RETURN_IF_ERROR(ReadGemma2And3(config, fields, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->attention_softcap,
                          ReadSoftcap(config, "attn_logit_softcapping", 50));
  ACUITY_ASSIGN_OR_RETURN(spec->logit_softcap, ReadSoftcap(config, "final_logit_softcapping", 30));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(
      config, window, [](int layer) { return layer % 2 == 0; }, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadGemma3(const HfConfig& config, ModelSpec* spec) {
  const HfFields fields = {.absent_kv_heads = 4,
                           .absent_head_dim = 256,
                           .activation = "hidden_activation",
                           .absent_activation = "gelu_pytorch_tanh",
                           .absent_tied = true};
  ACUITY_RETURN_IF_ERROR(ReadGemma2And3(config, fields, spec));
  if (!config.Has("rope_theta")) spec->ropes[0].theta = 1e6f;
  spec->qk_norm = QkNorm::kPerHead;
  ACUITY_ASSIGN_OR_RETURN(spec->attention_softcap,
                          ReadSoftcap(config, "attn_logit_softcapping", 0));
  ACUITY_ASSIGN_OR_RETURN(spec->logit_softcap, ReadSoftcap(config, "final_logit_softcapping", 0));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  int64_t pattern = 6;
  for (const char* key : {"sliding_window_pattern", "_sliding_window_pattern"}) {
    ACUITY_ASSIGN_OR_RETURN(pattern, config.Integer(key, 1, kMaxContextTokens, pattern));
  }
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(
      config, window, [pattern](int layer) { return (layer + 1) % pattern != 0; }, spec));
  // The sliding layers have a rotary embedding of their own, which is not scaled.
  RopeSpec local = {.rotary_dim = spec->head_dim};
  ACUITY_ASSIGN_OR_RETURN(local.theta, config.Number("rope_local_base_freq", 1, 1e12f, 10000.0f));
  spec->ropes.push_back(local);
  for (LayerSpec& layer : spec->layers) layer.rope = layer.window > 0 ? 1 : 0;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadPhi3(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, {.absent_norm_epsilon = 1e-5f}, spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  config.Ignore({"original_max_position_embeddings"});  // read by longrope, of no use to others
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, 0));
  for (LayerSpec& layer : spec->layers) layer.window = window;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadOlmo2(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config, {.absent_norm_epsilon = 1e-5f}, spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  spec->pre_norm = false;
  spec->post_norm = true;
  spec->qk_norm = QkNorm::kWhole;
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadOlmo3(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadOlmo2(config, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(
      config, window, [](int layer) { return (layer + 1) % 4 != 0; }, spec));
  // Scaling is for the layers that see everything.
  spec->ropes.push_back({.theta = spec->ropes[0].theta, .rotary_dim = spec->ropes[0].rotary_dim});
  for (LayerSpec& layer : spec->layers) layer.rope = layer.window > 0 ? 1 : 0;
  return absl::OkStatus();
}

absl::Status ReadGranite(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadLlama(config, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->embedding_scale,
                          config.Number("embedding_multiplier", 1e-6f, kMaxScale, 1.0f));
  ACUITY_ASSIGN_OR_RETURN(spec->residual_scale,
                          config.Number("residual_multiplier", 1e-6f, kMaxScale, 1.0f));
  ACUITY_ASSIGN_OR_RETURN(spec->softmax_scale,
                          config.Number("attention_multiplier", 1e-6f, kMaxScale, 1.0f));
  ACUITY_ASSIGN_OR_RETURN(const float divisor,
                          config.Number("logits_scaling", 1e-6f, kMaxScale, 1.0f));
  spec->logit_scale = 1 / divisor;
  return absl::OkStatus();
}

absl::Status ReadStableLm(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(
      config,
      {.absent_kv_heads = 32, .norm_epsilon = "layer_norm_eps", .absent_norm_epsilon = 1e-5f},
      spec));
  spec->norm = kernels::NormKind::kLayer;
  spec->norm_bias = true;
  ACUITY_ASSIGN_OR_RETURN(spec->qkv_bias, config.Bool("use_qkv_bias", false));
  ACUITY_ASSIGN_OR_RETURN(spec->parallel_residual, config.Bool("use_parallel_residual", false));
  spec->shared_norm = spec->parallel_residual;
  ACUITY_ASSIGN_OR_RETURN(const bool qk_norm, config.Bool("qk_layernorm", false));
  if (qk_norm) spec->qk_norm = QkNorm::kOwnWeights;
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {.default_partial = 0.25f}, spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadStarCoder2(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config,
                                          {.absent_kv_heads = 2,
                                           .norm_epsilon = "norm_epsilon",
                                           .absent_norm_epsilon = 1e-5f,
                                           .absent_activation = "gelu_pytorch_tanh",
                                           .absent_tied = true},
                                          spec));
  config.Ignore({"activation_function", "attention_softmax_in_fp32", "mlp_type", "norm_type",
                 "scale_attention_softmax_in_fp32", "scale_attn_weights", "layer_norm_epsilon"});
  spec->norm = kernels::NormKind::kLayer;
  spec->norm_bias = true;
  spec->gated_ffn = false;
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "use_bias", true, spec));
  spec->ffn_bias = spec->qkv_bias;
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, 0));
  for (LayerSpec& layer : spec->layers) layer.window = window;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadGpt2(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config,
                                          {.layers = "n_layer",
                                           .hidden = "n_embd",
                                           .heads = "n_head",
                                           .kv_heads = "",
                                           .ffn = "n_inner",
                                           .absent_ffn_ratio = 4,
                                           .context = "n_positions",
                                           .norm_epsilon = "layer_norm_epsilon",
                                           .absent_norm_epsilon = 1e-5f,
                                           .activation = "activation_function",
                                           .absent_activation = "gelu_new",
                                           .absent_tied = true},
                                          spec));
  // n_ctx says n_positions again; reordering changes roundings only.
  config.Ignore({"n_ctx", "reorder_and_upcast_attn", "summary_type", "summary_use_proj",
                 "summary_activation", "summary_proj_to_labels", "summary_first_dropout"});
  ACUITY_RETURN_IF_ERROR(config.MustBeOff("scale_attn_by_inverse_layer_idx"));
  ACUITY_ASSIGN_OR_RETURN(const bool scaled, config.Bool("scale_attn_weights", true));
  if (!scaled) spec->softmax_scale = 1;
  spec->norm = kernels::NormKind::kLayer;
  spec->norm_bias = spec->qkv_bias = spec->attention_out_bias = spec->ffn_bias = true;
  spec->gated_ffn = false;
  spec->learned_positions = true;
  for (LayerSpec& layer : spec->layers) layer.rope = LayerSpec::kNoRope;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadGptNeoX(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(config,
                                          {.kv_heads = "",
                                           .norm_epsilon = "layer_norm_eps",
                                           .absent_norm_epsilon = 1e-5f,
                                           .absent_activation = "gelu"},
                                          spec));
  spec->norm = kernels::NormKind::kLayer;
  spec->norm_bias = spec->ffn_bias = true;
  spec->gated_ffn = false;
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", true, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->parallel_residual, config.Bool("use_parallel_residual", true));
  // Newer files repeat them under the common names.
  config.Ignore({"rope_theta", "partial_rotary_factor"});
  ACUITY_RETURN_IF_ERROR(ReadRope(
      config, {.theta = "rotary_emb_base", .partial = "rotary_pct", .default_partial = 0.25f},
      spec));
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadCohere(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCommonFields(
      config, {.norm_epsilon = "layer_norm_eps", .absent_norm_epsilon = 1e-5f, .absent_tied = true},
      spec));
  ACUITY_RETURN_IF_ERROR(ReadAttentionBias(config, "attention_bias", false, spec));
  spec->norm = kernels::NormKind::kLayer;
  spec->parallel_residual = spec->shared_norm = true;
  ACUITY_ASSIGN_OR_RETURN(const bool qk_norm, config.Bool("use_qk_norm", false));
  if (qk_norm) spec->qk_norm = QkNorm::kOwnWeights;
  ACUITY_ASSIGN_OR_RETURN(spec->logit_scale,
                          config.Number("logit_scale", 1e-6f, kMaxScale, 0.0625f));
  ACUITY_RETURN_IF_ERROR(ReadRope(config, {}, spec));
  spec->ropes[0].style = kernels::RopeStyle::kInterleaved;
  return ReadLogitPolicy(config, spec);
}

absl::Status ReadCohere2(const HfConfig& config, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(ReadCohere(config, spec));
  ACUITY_ASSIGN_OR_RETURN(const int window, ReadWindow(config, kWindow));
  int64_t pattern = 4;
  for (const char* key : {"sliding_window_pattern", "_sliding_window_pattern"}) {
    ACUITY_ASSIGN_OR_RETURN(pattern, config.Integer(key, 1, kMaxContextTokens, pattern));
  }
  ACUITY_RETURN_IF_ERROR(ReadLayerWindows(
      config, window, [pattern](int layer) { return (layer + 1) % pattern != 0; }, spec));
  config.Ignore({"order_of_interleaved_layers", "position_embedding_type", "rotary_pct",
                 "use_embedding_sharing", "use_gated_activation", "use_parallel_block",
                 "use_parallel_embedding"});
  // The layers that see everything have no positions.
  for (LayerSpec& layer : spec->layers) {
    if (layer.window == 0) layer.rope = LayerSpec::kNoRope;
  }
  return absl::OkStatus();
}

constexpr HfArchitecture kArchitectures[] = {
    {"llama", ReadLlama, kLlamaNames},
    {"mistral", ReadMistral, kLlamaNames},
    {"ministral", ReadMinistral, kLlamaNames},
    {"ministral3", ReadMinistral3, kLlamaNames},
    {"qwen2", ReadQwen2, kLlamaNames},
    {"qwen3", ReadQwen3, kLlamaNames},
    {"qwen3_moe", ReadQwen3Moe, kQwen3MoeNames},
    {"mixtral", ReadMixtral, kMixtralNames},
    {"gpt_oss", ReadGptOss, kGptOssNames},
    {"smollm3", ReadSmolLm3, kLlamaNames},
    {"gemma", ReadGemma, kGemmaNames},
    {"gemma2", ReadGemma2, kGemma2Names},
    {"gemma3_text", ReadGemma3, kGemma2Names},
    {"phi3", ReadPhi3, kPhi3Names},
    {"olmo2", ReadOlmo2, kOlmo2Names},
    {"olmo3", ReadOlmo3, kOlmo2Names},
    {"granite", ReadGranite, kLlamaNames},
    {"stablelm", ReadStableLm, kStableLmNames},
    {"starcoder2", ReadStarCoder2, kStarCoder2Names},
    {"gpt2", ReadGpt2, kGpt2Names, "transformer."},
    {"gpt_neox", ReadGptNeoX, kGptNeoXNames, "gpt_neox."},
    {"cohere", ReadCohere, kCohereNames},
    {"cohere2", ReadCohere2, kCohereNames},
};

}  // namespace

std::span<const HfArchitecture> HfArchitectures() { return kArchitectures; }

absl::StatusOr<HfModel> ReadHfModel(std::string_view config_json) {
  ACUITY_ASSIGN_OR_RETURN(const HfConfig config, HfConfig::Parse(config_json));
  ACUITY_ASSIGN_OR_RETURN(const std::string type, config.String("model_type"));
  HfModel model;
  std::string supported;
  for (const HfArchitecture& architecture : HfArchitectures()) {
    if (architecture.model_type == type) model.architecture = &architecture;
    supported += Concat(supported.empty() ? "" : ", ", architecture.model_type);
  }
  if (model.architecture == nullptr) {
    return config.Bad("model_type", Concat("supported: ", supported));
  }
  model.spec.architecture = model.architecture->model_type;
  ACUITY_RETURN_IF_ERROR(model.architecture->read(config, &model.spec));
  ACUITY_RETURN_IF_ERROR(config.CheckAllRead());
  return model;
}

}  // namespace acuity::engine
