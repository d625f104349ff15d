#include "engine/loader/hf_fields.h"

#include <cmath>
#include <string>
#include <utility>

#include "engine/base/limits.h"
#include "engine/loader/model_limits.h"
#include "engine/loader/policy.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 22;

absl::Status ReadHeads(const HfConfig& config, const HfFields& fields, ModelSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(spec->num_heads, config.Integer(fields.heads, 1, kMaxHeads));
  spec->num_kv_heads = spec->num_heads;
  if (!fields.kv_heads.empty()) {
    std::optional<int64_t> absent = fields.absent_kv_heads;
    if (absent == 0) absent = spec->num_heads;
    ACUITY_ASSIGN_OR_RETURN(spec->num_kv_heads,
                            config.Integer(fields.kv_heads, 1, spec->num_heads, absent));
  }
  if (spec->num_heads % spec->num_kv_heads != 0) {
    return config.Bad(fields.kv_heads,
                      Concat("it must divide ", fields.heads, ", ", spec->num_heads));
  }
  const int64_t absent_dim = fields.absent_head_dim;
  ACUITY_ASSIGN_OR_RETURN(spec->head_dim, config.Integer("head_dim", 1, kMaxHeadDim, absent_dim));
  if (spec->head_dim == 0) {
    if (spec->hidden_size % spec->num_heads != 0) {
      return config.Bad(fields.hidden,
                        Concat("it must be a multiple of ", fields.heads, ", ", spec->num_heads));
    }
    spec->head_dim = spec->hidden_size / spec->num_heads;
  }
  if (spec->head_dim % kHeadDimStep != 0 || spec->head_dim > kMaxHeadDim) {
    return InvalidArgument("config.json: the head dimension (head_dim, or ", fields.hidden, " / ",
                           fields.heads, ") is ", spec->head_dim, "; it must be a multiple of ",
                           kHeadDimStep, " up to ", kMaxHeadDim);
  }
  return absl::OkStatus();
}

absl::Status ReadActivation(const HfConfig& config, const HfFields& fields, ModelSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(const std::string name,
                          config.String(fields.activation, std::string(fields.absent_activation)));
  using kernels::Activation;
  static constexpr std::pair<std::string_view, Activation> kActivations[] = {
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
  };
  for (const auto& [known, activation] : kActivations) {
    if (known == name) {
      spec->activation = activation;
      return absl::OkStatus();
    }
  }
  return config.Bad(fields.activation, "supported: silu, gelu, gelu_new, gelu_pytorch_tanh");
}

absl::Status IgnoreHarmlessKeys(const HfConfig& config) {
  config.Ignore({
      // What it is, and who wrote it.
      "model_type",
      "architectures",
      "auto_map",
      "transformers_version",
      "torch_dtype",
      "dtype",
      "_name_or_path",
      "unsloth_version",
      "unsloth_fixed",
      // The tokenizer's and generation's part.
      "bos_token_id",
      "eos_token_id",
      "pad_token_id",
      "sep_token_id",
      "cls_token_id",
      "unk_token_id",
      "decoder_start_token_id",
      "cache_implementation",
      "use_cache",
      // Training only.
      "initializer_range",
      "attention_dropout",
      "hidden_dropout",
      "embd_pdrop",
      "resid_pdrop",
      "attn_pdrop",
      "residual_dropout",
      "embedding_dropout",
      "classifier_dropout",
      "output_router_logits",
      "router_aux_loss_coef",
      "router_jitter_noise",
      "gradient_checkpointing",
      // Outputs and other tasks.
      "return_dict",
      "output_hidden_states",
      "output_attentions",
      "id2label",
      "label2id",
      "problem_type",
      "task_specific_params",
      "finetuning_task",
      // The order of additions, or how it is computed.
      "pretraining_tp",
      "_attn_implementation",
      "attn_implementation",
  });
  for (const char* key :
       {"quantization_config", "compression_config", "add_cross_attention", "is_encoder_decoder",
        "pruned_heads", "chunk_size_feed_forward", "use_bidirectional_attention", "adapters"}) {
    ACUITY_RETURN_IF_ERROR(config.MustBeOff(key));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadCommonFields(const HfConfig& config, const HfFields& fields, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(IgnoreHarmlessKeys(config));
  ACUITY_ASSIGN_OR_RETURN(spec->num_layers, config.Integer(fields.layers, 1, kMaxLayers));
  ACUITY_ASSIGN_OR_RETURN(spec->hidden_size, config.Integer(fields.hidden, 1, kMaxHiddenSize));
  ACUITY_RETURN_IF_ERROR(ReadHeads(config, fields, spec));
  std::optional<int64_t> absent_ffn;
  if (fields.absent_ffn_ratio > 0) absent_ffn = fields.absent_ffn_ratio * spec->hidden_size;
  ACUITY_ASSIGN_OR_RETURN(spec->ffn_size, config.Integer(fields.ffn, 1, kMaxFfnSize, absent_ffn));
  ACUITY_ASSIGN_OR_RETURN(spec->vocab_size, config.Integer("vocab_size", 1, kMaxVocabulary));
  ACUITY_ASSIGN_OR_RETURN(spec->max_context, config.Integer(fields.context, 1, kMaxContextTokens));
  ACUITY_ASSIGN_OR_RETURN(spec->norm_epsilon, config.Number(fields.norm_epsilon, 1e-12f, 0.1f,
                                                            fields.absent_norm_epsilon));
  ACUITY_RETURN_IF_ERROR(ReadActivation(config, fields, spec));
  ACUITY_ASSIGN_OR_RETURN(spec->tied_embeddings,
                          config.Bool("tie_word_embeddings", fields.absent_tied));
  spec->softmax_scale = 1.0f / std::sqrt(static_cast<float>(spec->head_dim));
  spec->layers.resize(static_cast<size_t>(spec->num_layers));
  return absl::OkStatus();
}

absl::Status ReadAttentionBias(const HfConfig& config, std::string_view key, bool absent,
                               ModelSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(spec->qkv_bias, config.Bool(key, absent));
  spec->attention_out_bias = spec->qkv_bias;
  return absl::OkStatus();
}

absl::StatusOr<int> ReadWindow(const HfConfig& config, int absent) {
  const int64_t none = config.HasKey("sliding_window") ? 0 : absent;
  ACUITY_ASSIGN_OR_RETURN(const int64_t window,
                          config.Integer("sliding_window", 1, kMaxContextTokens, none));
  return static_cast<int>(window);
}

absl::StatusOr<std::optional<std::vector<bool>>> ReadSlidingLayers(const HfConfig& config,
                                                                   int num_layers) {
  if (!config.Has("layer_types")) return std::nullopt;
  ACUITY_ASSIGN_OR_RETURN(const std::vector<std::string> types,
                          config.Strings("layer_types", static_cast<size_t>(num_layers)));
  std::vector<bool> sliding;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      return config.Bad("layer_types", "supported: full_attention, sliding_attention");
    }
    sliding.push_back(type == "sliding_attention");
  }
  return sliding;
}

absl::Status ReadLogitPolicy(const HfConfig& config, ModelSpec* spec) {
  using kernels::RowScaleKind;
  ACUITY_ASSIGN_OR_RETURN(const bool ssmax, config.Bool("scalable_softmax", false));
  ACUITY_ASSIGN_OR_RETURN(const bool log_n, config.Bool("use_logn_attn", false));
  ACUITY_ASSIGN_OR_RETURN(const bool llama4, config.Bool("attn_temperature_tuning", false));
  LayerPolicy policy;
  if (ssmax) policy.kind = RowScaleKind::kSsmax;
  if (log_n) {
    if (ssmax) return config.Bad("use_logn_attn", "scalable_softmax is true, too");
    policy.kind = RowScaleKind::kLogN;
    ACUITY_ASSIGN_OR_RETURN(policy.length, config.Number("seq_length", 2, kMaxContextTokens));
    policy.name = Concat("logn:", policy.length);
  }
  if (llama4) {
    if (ssmax || log_n) {
      return config.Bad("attn_temperature_tuning", "there is another policy, too");
    }
    policy.kind = RowScaleKind::kLlama4;
    ACUITY_ASSIGN_OR_RETURN(policy.length,
                            config.Number("floor_scale", 1, kMaxContextTokens, 8192.0f));
    ACUITY_ASSIGN_OR_RETURN(policy.strength, config.Number("attn_scale", -1e3f, 1e3f, 0.1f));
    policy.name = Concat("llama4:scale=", policy.strength, ",floor=", policy.length);
  }
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!config.Has(key)) continue;
    ACUITY_ASSIGN_OR_RETURN(const HfConfig rope, config.Object(key));
    if (!rope.Has("llama_4_scaling_beta")) continue;
    if (policy.kind != RowScaleKind::kSoftmax)
      return rope.Bad("llama_4_scaling_beta", "there is another policy, too");
    ACUITY_ASSIGN_OR_RETURN(const float beta, rope.Number("llama_4_scaling_beta", -1e3f, 1e3f));
    ACUITY_ASSIGN_OR_RETURN(const float context,
                            rope.Number("original_max_position_embeddings", 1, kMaxContextTokens));
    policy = MinistralPolicy(beta, context);
  }
  if (policy.kind == RowScaleKind::kSoftmax) return absl::OkStatus();
  for (LayerSpec& layer : spec->layers) {
    if (llama4 && layer.rope != LayerSpec::kNoRope) continue;
    layer.policy = policy;
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
