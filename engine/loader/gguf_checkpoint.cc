#include "engine/loader/gguf_checkpoint.h"

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/loader/gguf_architectures.h"
#include "engine/loader/gguf_metadata.h"
#include "engine/loader/gguf_tensors.h"
#include "engine/loader/gguf_tokenizer.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

// A model file larger than this is not for this daemon: its weights could not be held in memory.
constexpr uint64_t kMaxModelFileBytes = uint64_t{1} << 40;
constexpr uint64_t kMaxNameBytes = 1024;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("GGUF: ", parts...);
}

// Which architecture it is, after checking what must hold of every file.
absl::StatusOr<const GgufArchitecture*> ReadArchitecture(GgufMetadata* metadata) {
  ACUITY_ASSIGN_OR_RETURN(const std::string_view type,
                          metadata->String("general.type", kMaxNameBytes, "model"));
  if (type != "model") {
    return Bad("general.type is ", QuoteForError(type), "; only 'model' is supported");
  }
  // Version 2 of the block formats is the one that dequantise.h describes.
  ACUITY_RETURN_IF_ERROR(metadata->Integer("general.quantization_version", 2, 2, 2).status());
  ACUITY_ASSIGN_OR_RETURN(const std::string_view architecture,
                          metadata->String("general.architecture", kMaxNameBytes));
  std::string supported;
  for (const GgufArchitecture& one : GgufArchitectures()) {
    if (one.name == architecture) return &one;
    supported += Concat(supported.empty() ? "" : ", ", one.name);
  }
  return Bad("general.architecture is ", QuoteForError(architecture), "; supported: ", supported);
}

// The name of the type that most tensors have; of equals, the one that comes first in
// SupportedTensorTypes.
std::string_view CommonestType(const GgufFile& file) {
  std::string_view commonest;
  int64_t most = 0;
  for (const TensorType& type : SupportedTensorTypes()) {
    const int64_t count =
        std::count_if(file.tensors.begin(), file.tensors.end(),
                      [&type](const GgufTensor& tensor) { return tensor.type == &type; });
    if (count > most) {
      most = count;
      commonest = type.name;
    }
  }
  return commonest;
}

// The spec's tensors, each in terms of the file's.
struct Tensors {
  std::vector<Checkpoint::TensorInfo> infos;
  std::vector<GgufTensorView> views;  // parallel to infos
  std::map<std::string, size_t, std::less<>> index;
};

absl::StatusOr<Tensors> MapTensors(const GgufArchitecture& architecture, const ModelSpec& spec,
                                   GgufTensorMap* map) {
  Tensors all;
  for (ModelTensor& tensor : ModelTensors(spec)) {
    ACUITY_ASSIGN_OR_RETURN(const GgufTensorView view,
                            map->Resolve(tensor, spec, architecture.ffn_norm));
    all.index[tensor.name] = all.infos.size();
    all.infos.push_back({std::move(tensor.name), std::string(view.tensor->type->name), tensor.rows,
                         tensor.columns});
    all.views.push_back(view);
  }
  ACUITY_RETURN_IF_ERROR(map->CheckAllUsed(architecture.name));
  return all;
}

class GgufCheckpoint : public Checkpoint {
 public:
  // `tensors` views elements of file.tensors.
  GgufCheckpoint(GgufFile file, uint64_t file_bytes, ModelSpec spec, TokenizerSpec tokenizer,
                 Tensors tensors)
      : file_(std::move(file)),
        file_bytes_(file_bytes),
        spec_(std::move(spec)),
        tokenizer_(std::move(tokenizer)),
        tensors_(std::move(tensors)),
        stored_type_(CommonestType(file_)) {}

  void Own(std::unique_ptr<MappedFile> mapping) { mapping_ = std::move(mapping); }

  const ModelSpec& spec() const override { return spec_; }
  const TokenizerSpec& tokenizer() const override { return tokenizer_; }
  std::string_view stored_type() const override { return stored_type_; }
  uint64_t file_bytes() const override { return file_bytes_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_.infos; }

  const TensorInfo* Find(std::string_view name) const override {
    const auto found = tensors_.index.find(name);
    return found == tensors_.index.end() ? nullptr : &tensors_.infos[found->second];
  }

  absl::Status ReadRows(const TensorInfo& info, int64_t row_begin, int64_t num_rows,
                        float* out) const override {
    const auto found = tensors_.index.find(info.name);
    if (found == tensors_.index.end()) {
      return InvalidArgument("no tensor ", QuoteForError(info.name), " in this checkpoint");
    }
    if (row_begin < 0 || num_rows < 0 || row_begin > info.rows ||
        num_rows > info.rows - row_begin) {
      return InvalidArgument("rows [", row_begin, ", +", num_rows, ") of ",
                             QuoteForError(info.name), ", which has ", info.rows);
    }
    const GgufTensorView& view = tensors_.views[found->second];
    if (info.rows == 1) {
      view.Read(0, num_rows * info.columns, 1, out);
    } else {
      view.Read(row_begin, num_rows, info.columns, out);
    }
    return absl::OkStatus();
  }

 private:
  std::unique_ptr<MappedFile> mapping_;  // null if somebody else keeps the bytes
  const GgufFile file_;                  // views into the bytes
  const uint64_t file_bytes_;
  const ModelSpec spec_;
  const TokenizerSpec tokenizer_;
  const Tensors tensors_;
  const std::string_view stored_type_;
};

absl::StatusOr<std::unique_ptr<GgufCheckpoint>> Build(std::span<const uint8_t> bytes) {
  ACUITY_ASSIGN_OR_RETURN(GgufFile file, ParseGguf(bytes));
  GgufMetadata metadata(&file);
  GgufTensorMap map(&file);
  ACUITY_ASSIGN_OR_RETURN(const GgufArchitecture* architecture, ReadArchitecture(&metadata));
  ACUITY_ASSIGN_OR_RETURN(ModelSpec spec, ReadGgufSpec(*architecture, &metadata, &map));
  ACUITY_ASSIGN_OR_RETURN(TokenizerSpec tokenizer, ReadTokenizerSpec(&metadata));
  const int vocabulary = static_cast<int>(tokenizer.tokens.size());
  if (spec.vocab_size != 0 && spec.vocab_size != vocabulary) {
    return Bad(architecture->name, ".vocab_size is ", spec.vocab_size,
               ", but tokenizer.ggml.tokens has ", vocabulary, " elements");
  }
  spec.vocab_size = vocabulary;
  ACUITY_ASSIGN_OR_RETURN(Tensors tensors, MapTensors(*architecture, spec, &map));
  return std::make_unique<GgufCheckpoint>(std::move(file), bytes.size(), std::move(spec),
                                          std::move(tokenizer), std::move(tensors));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(std::span<const uint8_t> bytes) {
  return Build(bytes);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGgufFile(const std::string& path) {
  ACUITY_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapping,
                          MappedFile::Open(path, kMaxModelFileBytes));
  absl::StatusOr<std::unique_ptr<GgufCheckpoint>> checkpoint = Build(mapping->bytes());
  if (!checkpoint.ok()) {
    return InFile(path, checkpoint.status());
  }
  (*checkpoint)->Own(std::move(mapping));
  return checkpoint;
}

}  // namespace acuity::engine
