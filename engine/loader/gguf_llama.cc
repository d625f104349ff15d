// The "llama" architecture in GGUF: which keys and tensors it has, and what they mean.
#include <cmath>
#include <limits>
#include <string>

#include "engine/base/limits.h"
#include "engine/loader/gguf_checkpoint.h"
#include "engine/loader/model_limits.h"
#include "engine/loader/model_tensors.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr uint64_t kMaxNameBytes = 1024;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("GGUF: ", parts...);
}

// Keys that other llama-like models use to change the computation; here they must be absent or say
// "nothing special".
absl::Status RefuseOtherMaths(GgufMetadata* metadata) {
  for (const std::string_view key :
       {"llama.expert_count", "llama.expert_used_count", "llama.attention.sliding_window"}) {
    ACUITY_RETURN_IF_ERROR(metadata->Integer(key, 0, 0, 0).status());
  }
  ACUITY_ASSIGN_OR_RETURN(const bool parallel,
                          metadata->Bool("llama.use_parallel_residual", false));
  if (parallel) return Bad("llama.use_parallel_residual is true, which is not supported");
  ACUITY_ASSIGN_OR_RETURN(const bool causal, metadata->Bool("llama.attention.causal", true));
  if (!causal) return Bad("llama.attention.causal is false, which is not supported");
  ACUITY_ASSIGN_OR_RETURN(const std::string_view scaling,
                          metadata->String("llama.rope.scaling.type", kMaxNameBytes, "none"));
  if (scaling != "none") {
    return Bad("llama.rope.scaling.type is ", QuoteForError(scaling),
               "; only 'none' and the tensor rope_freqs.weight are supported");
  }
  // The layout that every llama file has, under the name that older writers give it.
  constexpr std::string_view kPermuted = "Meta AI original pth";
  ACUITY_ASSIGN_OR_RETURN(const std::string_view layout,
                          metadata->String("llama.tensor_data_layout", kMaxNameBytes, kPermuted));
  if (layout != kPermuted) {
    return Bad("llama.tensor_data_layout is ", QuoteForError(layout), "; only '", kPermuted,
               "' is supported");
  }
  return absl::OkStatus();
}

absl::Status ReadHeads(GgufMetadata* metadata, ModelSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(spec->num_heads,
                          metadata->Integer("llama.attention.head_count", 1, kMaxHeads));
  ACUITY_ASSIGN_OR_RETURN(spec->num_kv_heads, metadata->Integer("llama.attention.head_count_kv", 1,
                                                                kMaxHeads, spec->num_heads));
  if (spec->num_heads % spec->num_kv_heads != 0) {
    return Bad("llama.attention.head_count ", spec->num_heads,
               " is not a multiple of head_count_kv ", spec->num_kv_heads);
  }
  ACUITY_ASSIGN_OR_RETURN(
      const int64_t key_length,
      metadata->Integer("llama.attention.key_length", kHeadDimStep, kMaxHeadDim, 0));
  if (key_length == 0 && spec->hidden_size % spec->num_heads != 0) {
    return Bad("llama.embedding_length ", spec->hidden_size, " is not a multiple of head_count ",
               spec->num_heads);
  }
  spec->head_dim =
      key_length != 0 ? static_cast<int>(key_length) : spec->hidden_size / spec->num_heads;
  if (spec->head_dim % kHeadDimStep != 0 || spec->head_dim > kMaxHeadDim || spec->head_dim == 0) {
    return Bad(
        "the head dimension (llama.attention.key_length, or embedding_length / head_count) "
        "is ",
        spec->head_dim, "; it must be a multiple of ", kHeadDimStep, " from ", kHeadDimStep, " to ",
        kMaxHeadDim);
  }
  ACUITY_RETURN_IF_ERROR(
      metadata
          ->Integer("llama.attention.value_length", spec->head_dim, spec->head_dim, spec->head_dim)
          .status());
  return absl::OkStatus();
}

absl::Status ReadRope(GgufMetadata* metadata, ModelSpec* spec) {
  RopeSpec& rope = spec->ropes.emplace_back();
  ACUITY_ASSIGN_OR_RETURN(rope.theta,
                          metadata->Float("llama.rope.freq_base", 1.0f, 1e12f, 10000.0f));
  ACUITY_ASSIGN_OR_RETURN(rope.rotary_dim, metadata->Integer("llama.rope.dimension_count", 2,
                                                             spec->head_dim, spec->head_dim));
  if (rope.rotary_dim % 2 != 0) {
    return Bad("llama.rope.dimension_count is ", rope.rotary_dim, "; it must be even");
  }
  rope.style = kernels::RopeStyle::kInterleaved;
  return absl::OkStatus();
}

// Checks tensors against what is wanted and counts them, so that what is left over shows.
class TensorCheck {
 public:
  explicit TensorCheck(const GgufFile& file) : file_(file), used_(file.tensors.size()) {}

  // Null if the tensor is absent. Marks it as used.
  const GgufTensor* Use(std::string_view name) {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor != nullptr) used_[tensor - file_.tensors.data()] = true;
    return tensor;
  }

  absl::Status Require(const ModelTensor& wanted) {
    const GgufTensor* tensor = Use(wanted.name);
    if (tensor == nullptr) return Bad("tensor '", wanted.name, "' is missing");
    if (tensor->dims[0] != wanted.columns || tensor->dims[1] != wanted.rows ||
        tensor->dims[2] != 1 || tensor->dims[3] != 1) {
      return Bad("tensor '", wanted.name, "' has shape [", tensor->dims[0], ", ", tensor->dims[1],
                 ", ", tensor->dims[2], ", ", tensor->dims[3], "]; it must be [", wanted.columns,
                 ", ", wanted.rows, ", 1, 1]");
    }
    return absl::OkStatus();
  }

  absl::Status CheckAllUsed() const {
    for (size_t i = 0; i < used_.size(); ++i) {
      if (used_[i]) continue;
      const std::string_view name = file_.tensors[i].name;
      if (name.ends_with(".bias")) {
        return Bad("tensor ", QuoteForError(name), ": biases are not supported");
      }
      return Bad(
          "tensor ", QuoteForError(name),
          " is not part of a llama model of this size; ignoring it would change the results");
    }
    return absl::OkStatus();
  }

 private:
  const GgufFile& file_;
  std::vector<bool> used_;  // parallel to file_.tensors
};

// Divisors of the rotary frequencies (Llama 3.1's scaling, worked out by the file's writer).
absl::Status ReadRopeFactors(TensorCheck* check, ModelSpec* spec) {
  constexpr std::string_view kName = "rope_freqs.weight";
  const GgufTensor* tensor = check->Use(kName);
  if (tensor == nullptr) return absl::OkStatus();
  RopeSpec& rope = spec->ropes[0];
  ACUITY_RETURN_IF_ERROR(check->Require({std::string(kName), 1, rope.rotary_dim / 2}));
  if (tensor->type->name != "F32") {
    return Bad("tensor '", kName, "' has type ", tensor->type->name, "; it must be F32");
  }
  std::vector<float> factors(static_cast<size_t>(rope.rotary_dim / 2));
  tensor->type->dequantise(tensor->data.data(), static_cast<int64_t>(factors.size()),
                           factors.data());
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0 && factors[i] <= std::numeric_limits<float>::max())) {
      return Bad("tensor '", kName, "' has element ", i, " = ", factors[i],
                 "; it must be positive and finite");
    }
  }
  rope.factors = std::move(factors);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSpec> ReadLlamaSpec(GgufMetadata* metadata) {
  ModelSpec spec;
  spec.architecture = "llama";
  ACUITY_ASSIGN_OR_RETURN(spec.display_name, metadata->String("general.name", kMaxNameBytes, ""));
  ACUITY_ASSIGN_OR_RETURN(spec.num_layers, metadata->Integer("llama.block_count", 1, kMaxLayers));
  ACUITY_ASSIGN_OR_RETURN(spec.hidden_size,
                          metadata->Integer("llama.embedding_length", 1, kMaxHiddenSize));
  ACUITY_ASSIGN_OR_RETURN(spec.ffn_size,
                          metadata->Integer("llama.feed_forward_length", 1, kMaxFfnSize));
  ACUITY_ASSIGN_OR_RETURN(spec.max_context,
                          metadata->Integer("llama.context_length", 1, kMaxContextTokens));
  ACUITY_ASSIGN_OR_RETURN(spec.norm_epsilon,
                          metadata->Float("llama.attention.layer_norm_rms_epsilon", 1e-12f, 0.1f));
  ACUITY_RETURN_IF_ERROR(ReadHeads(metadata, &spec));
  ACUITY_RETURN_IF_ERROR(ReadRope(metadata, &spec));
  ACUITY_RETURN_IF_ERROR(RefuseOtherMaths(metadata));
  // Says again what the tokens say. Checked against them by the caller.
  ACUITY_ASSIGN_OR_RETURN(
      spec.vocab_size,
      metadata->Integer("llama.vocab_size", 1, std::numeric_limits<int32_t>::max(), 0));
  ACUITY_RETURN_IF_ERROR(metadata->CheckAllRead("llama."));
  spec.softmax_scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  spec.layers.resize(static_cast<size_t>(spec.num_layers));
  return spec;
}

absl::Status CheckLlamaTensors(const GgufFile& file, ModelSpec* spec) {
  TensorCheck check(file);
  spec->tied_embeddings = file.FindTensor("output.weight") == nullptr;
  for (const ModelTensor& tensor : ModelTensors(*spec)) {
    ACUITY_RETURN_IF_ERROR(check.Require(tensor));
  }
  ACUITY_RETURN_IF_ERROR(ReadRopeFactors(&check, spec));
  return check.CheckAllUsed();
}

}  // namespace acuity::engine
