#include "engine/loader/gguf_architectures.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "engine/base/limits.h"
#include "engine/loader/model_limits.h"
#include "engine/loader/policy.h"
#include "engine/loader/rope_scaling.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

using kernels::Activation;
using kernels::NormKind;
using kernels::RopeStyle;

constexpr uint64_t kMaxNameBytes = 1024;
constexpr float kMaxScale = 1e6f;
constexpr float kMaxTheta = 1e12f;
constexpr int64_t kMaxExperts = 1024;

constexpr GgufArchitecture kArchitectures[] = {
    {.name = "llama", .rope_style = RopeStyle::kInterleaved, .experts = true},
    {.name = "mistral3", .rope_style = RopeStyle::kInterleaved, .has_temperature = true},
    {.name = "qwen2"},
    {.name = "qwen3", .qk_norm = QkNorm::kPerHead},
    {.name = "qwen3moe", .qk_norm = QkNorm::kPerHead, .experts = true},
    {.name = "smollm3", .rope_style = RopeStyle::kInterleaved, .no_rope_period = 4},
    {.name = "gemma", .activation = Activation::kGeluTanh, .embeds_times_root = true},
    {.name = "gemma2",
     .post_norm = true,
     .window_period = 2,
     .absent_window = 4096,
     .activation = Activation::kGeluTanh,
     .embeds_times_root = true,
     .layers_scaled_by_hidden = 46,
     .has_attention_softcap = true,
     .has_logit_softcap = true,
     .absent_attention_softcap = 50,
     .absent_logit_softcap = 30},
    {.name = "gemma3",
     .post_norm = true,
     .rope = GgufRope::kOwnInWindows,
     .absent_window_theta = 10000,
     .qk_norm = QkNorm::kPerHead,
     .window_period = 6,
     .activation = Activation::kGeluTanh,
     .embeds_times_root = true,
     .layers_scaled_by_hidden = 62,
     .has_logit_softcap = true},
    {.name = "phi3", .window_period = 0},
    // OLMo 3 is OLMo 2 with windows.
    {.name = "olmo2",
     .pre_norm = false,
     .post_norm = true,
     .rope = GgufRope::kOwnInWindows,
     .qk_norm = QkNorm::kWhole,
     .window_period = 4},
    {.name = "granite", .rope_style = RopeStyle::kInterleaved, .has_multipliers = true},
    {.name = "stablelm",
     .norm = NormKind::kLayer,
     .residual = GgufResidual::kAsNormsSay,
     .qk_norm = QkNorm::kOwnWeights},
    {.name = "starcoder2",
     .norm = NormKind::kLayer,
     .activation = Activation::kGeluTanh,
     .gated_ffn = false},
    {.name = "gpt2",
     .norm = NormKind::kLayer,
     .rope = GgufRope::kNone,
     .activation = Activation::kGeluTanh,
     .gated_ffn = false},
    {.name = "gptneox",
     .norm = NormKind::kLayer,
     .residual = GgufResidual::kAsKeySays,
     .activation = Activation::kGelu,
     .gated_ffn = false},
    {.name = "command-r",
     .norm = NormKind::kLayer,
     .residual = GgufResidual::kParallel,
     .rope_style = RopeStyle::kInterleaved,
     .qk_norm = QkNorm::kOwnWeights,
     .has_logit_scale = true},
    {.name = "cohere2",
     .norm = NormKind::kLayer,
     .residual = GgufResidual::kParallel,
     .rope_style = RopeStyle::kInterleaved,
     .rope = GgufRope::kInWindowsOnly,
     .window_period = 4,
     .absent_window = std::nullopt,
     .has_logit_scale = true},
    {.name = "gpt-oss",
     .ffn_norm = "post_attention_norm",
     .yarn_truncates = false,
     .window_period = 2,
     .absent_window = std::nullopt,
     .activation = Activation::kClampedSwiglu,
     .experts = true},
};

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("GGUF: ", parts...);
}

// Reads the keys of one architecture into a spec.
class SpecReader {
 public:
  SpecReader(const GgufArchitecture& architecture, GgufMetadata* metadata, GgufTensorMap* tensors)
      : architecture_(architecture), metadata_(metadata), tensors_(tensors) {
    spec_.architecture = architecture.name;
  }

  absl::StatusOr<ModelSpec> Read() {
    ACUITY_ASSIGN_OR_RETURN(spec_.display_name,
                            metadata_->String("general.name", kMaxNameBytes, ""));
    ACUITY_RETURN_IF_ERROR(ReadSizes());
    ACUITY_RETURN_IF_ERROR(ReadHeads());
    ACUITY_RETURN_IF_ERROR(ReadBlock());
    ACUITY_RETURN_IF_ERROR(ReadWindows());
    ACUITY_RETURN_IF_ERROR(ReadRopes());
    ACUITY_RETURN_IF_ERROR(ReadScales());
    ACUITY_RETURN_IF_ERROR(RefuseOtherMaths());
    ACUITY_RETURN_IF_ERROR(metadata_->CheckAllRead(Key("")));
    return std::move(spec_);
  }

 private:
  std::string Key(std::string_view suffix) const { return Concat(architecture_.name, ".", suffix); }
  absl::StatusOr<int64_t> Integer(std::string_view suffix, int64_t min, int64_t max,
                                  std::optional<int64_t> absent = std::nullopt) {
    return metadata_->Integer(Key(suffix), min, max, absent);
  }
  absl::StatusOr<float> Float(std::string_view suffix, float min, float max,
                              std::optional<float> absent = std::nullopt) {
    return metadata_->Float(Key(suffix), min, max, absent);
  }

  absl::Status ReadSizes() {
    ACUITY_ASSIGN_OR_RETURN(spec_.num_layers, Integer("block_count", 1, kMaxLayers));
    ACUITY_ASSIGN_OR_RETURN(spec_.hidden_size, Integer("embedding_length", 1, kMaxHiddenSize));
    ACUITY_ASSIGN_OR_RETURN(spec_.max_context, Integer("context_length", 1, kMaxContextTokens));
    ACUITY_ASSIGN_OR_RETURN(spec_.ffn_size, Integer("feed_forward_length", 1, kMaxFfnSize));
    ACUITY_ASSIGN_OR_RETURN(spec_.experts.count,
                            Integer("expert_count", 0, architecture_.experts ? kMaxExperts : 0, 0));
    if (spec_.experts.count > 0) {
      ACUITY_ASSIGN_OR_RETURN(spec_.experts.per_token,
                              Integer("expert_used_count", 1, spec_.experts.count));
      ACUITY_ASSIGN_OR_RETURN(
          spec_.ffn_size, Integer("expert_feed_forward_length", 1, kMaxFfnSize, spec_.ffn_size));
      ACUITY_RETURN_IF_ERROR(Integer("expert_gating_func", 1, 1, 1).status());  // softmax
    } else {
      ACUITY_RETURN_IF_ERROR(Integer("expert_used_count", 0, 0, 0).status());
    }
    // Says again what the tokens say. Checked against them by the caller.
    ACUITY_ASSIGN_OR_RETURN(spec_.vocab_size,
                            Integer("vocab_size", 1, std::numeric_limits<int32_t>::max(), 0));
    spec_.layers.resize(static_cast<size_t>(spec_.num_layers));
    return absl::OkStatus();
  }

  absl::Status ReadHeads() {
    ACUITY_ASSIGN_OR_RETURN(spec_.num_heads, Integer("attention.head_count", 1, kMaxHeads));
    ACUITY_ASSIGN_OR_RETURN(spec_.num_kv_heads,
                            Integer("attention.head_count_kv", 1, kMaxHeads, spec_.num_heads));
    if (spec_.num_heads % spec_.num_kv_heads != 0) {
      return Bad(Key("attention.head_count"), " ", spec_.num_heads,
                 " is not a multiple of head_count_kv ", spec_.num_kv_heads);
    }
    ACUITY_ASSIGN_OR_RETURN(const int64_t key_length,
                            Integer("attention.key_length", kHeadDimStep, kMaxHeadDim, 0));
    if (key_length == 0 && spec_.hidden_size % spec_.num_heads != 0) {
      return Bad(Key("embedding_length"), " ", spec_.hidden_size,
                 " is not a multiple of head_count ", spec_.num_heads);
    }
    spec_.head_dim =
        key_length != 0 ? static_cast<int>(key_length) : spec_.hidden_size / spec_.num_heads;
    if (spec_.head_dim % kHeadDimStep != 0 || spec_.head_dim > kMaxHeadDim || spec_.head_dim == 0) {
      return Bad("the head dimension (", Key("attention.key_length"),
                 ", or embedding_length / head_count) is ", spec_.head_dim,
                 "; it must be a multiple of ", kHeadDimStep, " from ", kHeadDimStep, " to ",
                 kMaxHeadDim);
    }
    const int dim = spec_.head_dim;
    return Integer("attention.value_length", dim, dim, dim).status();
  }

  // What a layer is made of. Biases, sinks and whether the embedding is tied are for the tensors to
  // say.
  absl::Status ReadBlock() {
    const GgufArchitecture& a = architecture_;
    spec_.norm = a.norm;
    ACUITY_ASSIGN_OR_RETURN(spec_.norm_epsilon,
                            Float(a.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                                           : "attention.layer_norm_epsilon",
                                  1e-12f, 0.1f));
    spec_.pre_norm = a.pre_norm;
    spec_.post_norm = a.post_norm;
    ACUITY_RETURN_IF_ERROR(ReadResidual());
    spec_.activation = a.activation;
    spec_.gated_ffn = a.gated_ffn;
    const bool optional_norm = a.qk_norm == QkNorm::kOwnWeights;
    if (!optional_norm || tensors_->Has("blk.0.attn_q_norm.weight")) spec_.qk_norm = a.qk_norm;
    spec_.norm_bias = a.norm == NormKind::kLayer && tensors_->Has("output_norm.bias");
    spec_.qkv_bias = tensors_->Has("blk.0.attn_q.bias") || tensors_->Has("blk.0.attn_qkv.bias");
    spec_.attention_out_bias = tensors_->Has("blk.0.attn_output.bias");
    spec_.ffn_bias = tensors_->Has("blk.0.ffn_up.bias") || tensors_->Has("blk.0.ffn_up_exps.bias");
    spec_.experts.router_bias = tensors_->Has("blk.0.ffn_gate_inp.bias");
    spec_.sinks = tensors_->Has("blk.0.attn_sinks.weight");
    spec_.tied_embeddings = !tensors_->Has("output.weight");
    return absl::OkStatus();
  }

  absl::Status ReadResidual() {
    constexpr std::string_view kKey = "use_parallel_residual";
    switch (architecture_.residual) {
      case GgufResidual::kSerial: {
        ACUITY_ASSIGN_OR_RETURN(const bool parallel, metadata_->Bool(Key(kKey), false));
        if (parallel) return Bad(Key(kKey), " is true, which is not supported");
        return absl::OkStatus();
      }
      case GgufResidual::kAsKeySays: {
        ACUITY_ASSIGN_OR_RETURN(spec_.parallel_residual, metadata_->Bool(Key(kKey), true));
        return absl::OkStatus();
      }
      case GgufResidual::kAsNormsSay:
        // The key is there, but says true whenever the converter did not know.
        ACUITY_RETURN_IF_ERROR(metadata_->Bool(Key(kKey), true).status());
        spec_.parallel_residual = spec_.shared_norm = !tensors_->Has("blk.0.ffn_norm.weight");
        return absl::OkStatus();
      case GgufResidual::kParallel:
        spec_.parallel_residual = spec_.shared_norm = true;
        return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  absl::Status ReadWindows() {
    constexpr std::string_view kPattern = "attention.sliding_window_pattern";
    const bool none = architecture_.window_period == GgufArchitecture::kNoWindows;
    ACUITY_ASSIGN_OR_RETURN(const int64_t window,
                            Integer("attention.sliding_window", 0, none ? 0 : kMaxContextTokens,
                                    architecture_.absent_window));
    if (none || window == 0) return absl::OkStatus();
    // A list, or the period.
    const GgufValue* list = nullptr;
    if (metadata_->IsArray(Key(kPattern))) {
      const uint64_t layers = static_cast<uint64_t>(spec_.num_layers);
      ACUITY_ASSIGN_OR_RETURN(list,
                              metadata_->Array(Key(kPattern), GgufType::kBool, layers, layers));
    }
    int64_t period = architecture_.window_period;
    if (list == nullptr) {
      ACUITY_ASSIGN_OR_RETURN(period, Integer(kPattern, 0, kMaxLayers, period));
    }
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      const bool slides = list != nullptr
                              ? list->payload[i] != 0
                              : period == 0 || static_cast<int64_t>(i) % period < period - 1;
      if (slides) spec_.layers[i].window = static_cast<int>(window);
    }
    return absl::OkStatus();
  }

  absl::Status ReadRopes() {
    if (architecture_.rope == GgufRope::kNone) {
      spec_.learned_positions = true;
      for (LayerSpec& layer : spec_.layers) layer.rope = LayerSpec::kNoRope;
      return absl::OkStatus();
    }
    RopeSpec rope = {.style = architecture_.rope_style};
    ACUITY_ASSIGN_OR_RETURN(rope.theta, Float("rope.freq_base", 1.0f, kMaxTheta, 10000.0f));
    ACUITY_ASSIGN_OR_RETURN(rope.rotary_dim,
                            Integer("rope.dimension_count", 2, spec_.head_dim, spec_.head_dim));
    if (rope.rotary_dim % 2 != 0) {
      return Bad(Key("rope.dimension_count"), " is ", rope.rotary_dim, "; it must be even");
    }
    RopeSpec in_windows = rope;
    ACUITY_RETURN_IF_ERROR(ReadScaling(&rope));
    spec_.ropes.push_back(std::move(rope));
    if (architecture_.rope == GgufRope::kOwnInWindows) {
      const float absent = architecture_.absent_window_theta;
      ACUITY_ASSIGN_OR_RETURN(in_windows.theta, Float("rope.freq_base_swa", 1.0f, kMaxTheta,
                                                      absent == 0 ? in_windows.theta : absent));
      spec_.ropes.push_back(std::move(in_windows));
    }
    const int period = architecture_.no_rope_period;
    for (int i = 0; i < spec_.num_layers; ++i) {
      LayerSpec& layer = spec_.layers[static_cast<size_t>(i)];
      const bool window = layer.window > 0;
      if (architecture_.rope == GgufRope::kOwnInWindows && window) layer.rope = 1;
      if ((architecture_.rope == GgufRope::kInWindowsOnly && !window) ||
          (period > 0 && (i + 1) % period == 0)) {
        layer.rope = LayerSpec::kNoRope;
      }
    }
    return absl::OkStatus();
  }

  // Scaling by keys, or by tensors that the file's writer worked out (Llama 3.1's, LongRoPE's).
  absl::Status ReadScaling(RopeSpec* rope) {
    constexpr std::string_view kFactors = "rope_freqs.weight", kLong = "rope_factors_long.weight",
                               kShort = "rope_factors_short.weight";
    ACUITY_ASSIGN_OR_RETURN(const std::string_view type,
                            metadata_->String(Key("rope.scaling.type"), kMaxNameBytes, "none"));
    ACUITY_ASSIGN_OR_RETURN(const bool finetuned,
                            metadata_->Bool(Key("rope.scaling.finetuned"), true));
    if (!finetuned) return Bad(Key("rope.scaling.finetuned"), " is false; only true is supported");
    ACUITY_ASSIGN_OR_RETURN(original_context_, Integer("rope.scaling.original_context_length", 2,
                                                       kMaxContextTokens, spec_.max_context));
    const int64_t pairs = rope->rotary_dim / 2;
    if (type == "linear") {
      ACUITY_ASSIGN_OR_RETURN(const float factor, Float("rope.scaling.factor", 1, kMaxScale));
      rope->factors.assign(static_cast<size_t>(pairs), factor);
      return absl::OkStatus();
    }
    if (type == "yarn") return ReadYarn(rope);
    if (type != "none" && type != "longrope") {
      return Bad(Key("rope.scaling.type"), " is ", QuoteForError(type),
                 "; supported: none, linear, yarn, longrope");
    }
    if (tensors_->Has(kLong) || type == "longrope") {
      ACUITY_ASSIGN_OR_RETURN(std::vector<float> longer, tensors_->ReadFactors(kLong, pairs));
      ACUITY_ASSIGN_OR_RETURN(std::vector<float> shorter, tensors_->ReadFactors(kShort, pairs));
      ACUITY_ASSIGN_OR_RETURN(
          rope->magnitude,
          Float("rope.scaling.attn_factor", 1e-6f, kMaxScale,
                static_cast<float>(LongRopeMagnitude(spec_.max_context, original_context_))));
      rope->factors = std::move(spec_.max_context > original_context_ ? longer : shorter);
    } else if (tensors_->Has(kFactors)) {
      ACUITY_ASSIGN_OR_RETURN(rope->factors, tensors_->ReadFactors(kFactors, pairs));
    }
    return absl::OkStatus();
  }

  absl::Status ReadYarn(RopeSpec* rope) {
    YarnScaling yarn = {.original_context = original_context_,
                        .truncate = architecture_.yarn_truncates};
    ACUITY_ASSIGN_OR_RETURN(yarn.factor, Float("rope.scaling.factor", 1, kMaxScale));
    ACUITY_ASSIGN_OR_RETURN(
        yarn.many_turns, Float("rope.scaling.yarn_beta_fast", 1e-6f, kMaxScale, yarn.many_turns));
    ACUITY_ASSIGN_OR_RETURN(yarn.few_turns,
                            Float("rope.scaling.yarn_beta_slow", 1e-6f, kMaxScale, yarn.few_turns));
    ACUITY_RETURN_IF_ERROR(Float("rope.scaling.yarn_ext_factor", 1, 1, 1.0f).status());
    // mscale_all_dim, beside an mscale of 1.
    ACUITY_ASSIGN_OR_RETURN(const float m_all,
                            Float("rope.scaling.yarn_log_multiplier", 0, kMaxScale, 0.0f));
    const double magnitude = YarnMagnitude(yarn.factor, 1) / YarnMagnitude(yarn.factor, m_all);
    ACUITY_ASSIGN_OR_RETURN(rope->magnitude, Float("rope.scaling.yarn_attn_factor", 1e-6f,
                                                   kMaxScale, static_cast<float>(magnitude)));
    ApplyYarn(yarn, rope, &spec_.max_context);
    return absl::OkStatus();
  }

  absl::Status ReadScales() {
    const GgufArchitecture& a = architecture_;
    const int head_dim = a.layers_scaled_by_hidden == spec_.num_layers
                             ? spec_.hidden_size / spec_.num_heads
                             : spec_.head_dim;
    spec_.softmax_scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    if (a.embeds_times_root) {
      spec_.embedding_scale = std::sqrt(static_cast<float>(spec_.hidden_size));
    }
    if (a.has_multipliers) {
      ACUITY_ASSIGN_OR_RETURN(spec_.embedding_scale,
                              Float("embedding_scale", 1e-6f, kMaxScale, 1.0f));
      ACUITY_ASSIGN_OR_RETURN(spec_.residual_scale,
                              Float("residual_scale", 1e-6f, kMaxScale, 1.0f));
      ACUITY_ASSIGN_OR_RETURN(spec_.softmax_scale,
                              Float("attention.scale", 1e-6f, kMaxScale, spec_.softmax_scale));
      ACUITY_ASSIGN_OR_RETURN(const float divisor, Float("logit_scale", 1e-6f, kMaxScale));
      spec_.logit_scale = 1 / divisor;
    }
    if (a.has_logit_scale) {
      ACUITY_ASSIGN_OR_RETURN(spec_.logit_scale, Float("logit_scale", 1e-6f, kMaxScale));
    }
    if (a.has_attention_softcap) {
      ACUITY_ASSIGN_OR_RETURN(
          spec_.attention_softcap,
          Float("attn_logit_softcapping", 1e-3f, kMaxScale, a.absent_attention_softcap));
    }
    if (a.has_logit_softcap) {
      ACUITY_ASSIGN_OR_RETURN(spec_.logit_softcap, Float("final_logit_softcapping", 1e-3f,
                                                         kMaxScale, a.absent_logit_softcap));
    }
    if (a.has_temperature) {
      ACUITY_ASSIGN_OR_RETURN(const float beta,
                              Float("attention.temperature_scale", -1e3f, 1e3f, 0.0f));
      if (beta != 0) {
        const LayerPolicy policy = MinistralPolicy(beta, static_cast<float>(original_context_));
        for (LayerSpec& layer : spec_.layers) layer.policy = policy;
      }
    }
    return absl::OkStatus();
  }

  // Keys that change the computation, and must be absent or say "nothing special".
  absl::Status RefuseOtherMaths() {
    // Of the part that sees pictures, which is another file.
    ACUITY_RETURN_IF_ERROR(Integer("mm.tokens_per_image", 0, kMaxContextTokens, 0).status());
    ACUITY_ASSIGN_OR_RETURN(const bool causal, metadata_->Bool(Key("attention.causal"), true));
    if (!causal) return Bad(Key("attention.causal"), " is false, which is not supported");
    // The layout that every file has, under the name that older writers give it.
    constexpr std::string_view kPermuted = "Meta AI original pth";
    ACUITY_ASSIGN_OR_RETURN(const std::string_view layout,
                            metadata_->String(Key("tensor_data_layout"), kMaxNameBytes, kPermuted));
    if (layout != kPermuted) {
      return Bad(Key("tensor_data_layout"), " is ", QuoteForError(layout), "; only '", kPermuted,
                 "' is supported");
    }
    return absl::OkStatus();
  }

  const GgufArchitecture& architecture_;
  GgufMetadata* const metadata_;
  GgufTensorMap* const tensors_;
  ModelSpec spec_;
  int original_context_ = 0;  // what a scaled rotary embedding was trained for
};

}  // namespace

std::span<const GgufArchitecture> GgufArchitectures() { return kArchitectures; }

absl::StatusOr<ModelSpec> ReadGgufSpec(const GgufArchitecture& architecture, GgufMetadata* metadata,
                                       GgufTensorMap* tensors) {
  return SpecReader(architecture, metadata, tensors).Read();
}

}  // namespace acuity::engine
