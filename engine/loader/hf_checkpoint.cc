#include "engine/loader/hf_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/loader/hf_architectures.h"
#include "engine/loader/hf_tensors.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/model_file.h"
#include "engine/loader/safetensors.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr uint64_t kMaxConfigFileBytes = 4 << 20;

// Buffers that older files carry: masks, and what follows from config.json.
constexpr std::string_view kIgnoredTensors[] = {".attn.bias", ".attn.masked_bias",
                                                ".attention.bias", ".attention.masked_bias",
                                                "rotary_emb.inv_freq"};

class HfCheckpoint : public Checkpoint {
 public:
  HfCheckpoint(std::unique_ptr<SafetensorsSet> set, ModelSpec spec, TokenizerSpec tokenizer)
      : set_(std::move(set)), spec_(std::move(spec)), tokenizer_(std::move(tokenizer)) {}

  // The spec's tensors, each from the file's.
  absl::Status MapTensors(HfTensorMap* map) {
    std::map<std::string_view, int> types;
    for (ModelTensor& tensor : ModelTensors(spec_)) {
      ACUITY_ASSIGN_OR_RETURN(HfTensorView view, map->Resolve(tensor));
      const std::string_view type = view.pieces[0].tensor->type->name;
      ++types[type];
      index_[tensor.name] = infos_.size();
      infos_.push_back({std::move(tensor.name), std::string(type), tensor.rows, tensor.columns});
      views_.push_back(std::move(view));
    }
    stored_type_ = std::max_element(types.begin(), types.end(), [](const auto& a, const auto& b) {
                     return a.second < b.second;
                   })->first;
    return absl::OkStatus();
  }

  const ModelSpec& spec() const override { return spec_; }
  const TokenizerSpec& tokenizer() const override { return tokenizer_; }
  std::string_view stored_type() const override { return stored_type_; }
  uint64_t file_bytes() const override { return set_->file_bytes(); }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }

  const TensorInfo* Find(std::string_view name) const override {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &infos_[found->second];
  }

  absl::Status ReadRows(const TensorInfo& info, int64_t row_begin, int64_t num_rows,
                        float* out) const override {
    const auto found = index_.find(info.name);
    if (found == index_.end()) return InvalidArgument("no tensor '", info.name, "'");
    if (row_begin < 0 || num_rows < 0 || row_begin > info.rows ||
        num_rows > info.rows - row_begin) {
      return InvalidArgument("rows [", row_begin, ", +", num_rows, ") of '", info.name,
                             "', which has ", info.rows);
    }
    const HfTensorView& view = views_[found->second];
    // A vector's elements are its view's rows.
    if (info.rows == 1) return num_rows == 0 ? absl::OkStatus() : view.Read(0, view.rows, out);
    return view.Read(row_begin, num_rows, out);
  }

 private:
  const std::unique_ptr<SafetensorsSet> set_;
  const ModelSpec spec_;
  const TokenizerSpec tokenizer_;
  std::string_view stored_type_;
  std::vector<TensorInfo> infos_;
  std::vector<HfTensorView> views_;  // parallel to infos_
  std::map<std::string, size_t, std::less<>> index_;
};

absl::StatusOr<HfModel> ReadConfig(const std::string& directory) {
  ACUITY_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                          OpenModelFile(directory, "config.json", kMaxConfigFileBytes));
  const std::span<const uint8_t> bytes = file->bytes();
  return ReadHfModel({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// One number per head: s or b of a layer's scalable softmax.
absl::StatusOr<std::vector<float>> ReadPerHead(const SafetensorsTensor& tensor, int heads) {
  if (tensor.elements != heads) {
    return InvalidArgument("tensor '", tensor.name, "' has ", tensor.elements,
                           " elements; it must have one per head, ", heads);
  }
  std::vector<float> values(static_cast<size_t>(heads));
  ACUITY_RETURN_IF_ERROR(ReadAsFloat(tensor, 0, heads, values.data()));
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return InvalidArgument("tensor '", tensor.name, "' has an element that is not finite");
    }
  }
  return values;
}

// Fills the s and b of the layers that config.json says have a scalable softmax.
absl::Status ReadScalableSoftmax(HfTensorMap* map, ModelSpec* spec) {
  for (int i = 0; i < spec->num_layers; ++i) {
    LayerPolicy& policy = spec->layers[static_cast<size_t>(i)].policy;
    if (policy.kind != kernels::RowScaleKind::kSsmax) continue;
    const SafetensorsTensor* s = map->Use("model.layers.*.self_attn.ssmax_scale", i);
    if (s == nullptr) s = map->Use("model.layers.*.self_attn.softmax_scaler", i);
    if (s == nullptr) {
      return InvalidArgument("tensor 'model.layers.", i, ".self_attn.ssmax_scale' (or ",
                             "softmax_scaler) is missing, but config.json says scalable_softmax");
    }
    ACUITY_ASSIGN_OR_RETURN(policy.s, ReadPerHead(*s, spec->num_heads));
    if (const SafetensorsTensor* b = map->Use("model.layers.*.self_attn.ssmax_bias", i)) {
      ACUITY_ASSIGN_OR_RETURN(policy.b, ReadPerHead(*b, spec->num_heads));
    }
    policy.name = policy.b.empty() ? "ssmax:s=tensor" : "ssmax:s=tensor,b=tensor";
  }
  return absl::OkStatus();
}

// Embeddings are often padded to a round number of rows.
absl::Status FitTokenizer(int vocab_size, TokenizerSpec* tokenizer) {
  const size_t tokens = tokenizer->tokens.size();
  if (tokens > static_cast<size_t>(vocab_size)) {
    return InvalidArgument("config.json: vocab_size is ", vocab_size,
                           "; it must be at least the number of the tokenizer's tokens, ", tokens);
  }
  tokenizer->tokens.resize(static_cast<size_t>(vocab_size));
  tokenizer->kinds.resize(static_cast<size_t>(vocab_size), TokenKind::kUnused);
  if (!tokenizer->scores.empty()) tokenizer->scores.resize(static_cast<size_t>(vocab_size));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Build(const std::string& directory,
                                                  TokenizerSpec tokenizer) {
  ACUITY_ASSIGN_OR_RETURN(HfModel model, ReadConfig(directory));
  ModelSpec& spec = model.spec;
  spec.display_name = std::filesystem::path(directory).filename();
  ACUITY_RETURN_IF_ERROR(FitTokenizer(spec.vocab_size, &tokenizer));
  ACUITY_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsSet> set, SafetensorsSet::Open(directory));
  const SafetensorsSet& tensors = *set;
  HfTensorMap map(tensors, model.architecture->rules, model.architecture->base, spec);
  ACUITY_RETURN_IF_ERROR(ReadScalableSoftmax(&map, &spec));
  auto checkpoint =
      std::make_unique<HfCheckpoint>(std::move(set), std::move(spec), std::move(tokenizer));
  ACUITY_RETURN_IF_ERROR(checkpoint->MapTensors(&map));
  // A head that is stored though it is tied says again what the embedding says.
  if (checkpoint->spec().tied_embeddings) map.Use("lm_head.weight", 0);
  ACUITY_RETURN_IF_ERROR(map.CheckAllUsed(kIgnoredTensors));
  return checkpoint;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHf(const std::string& directory,
                                                   TokenizerSpec tokenizer) {
  auto checkpoint = Build(directory, std::move(tokenizer));
  if (!checkpoint.ok()) return InFile(directory, checkpoint.status());
  return checkpoint;
}

}  // namespace acuity::engine
