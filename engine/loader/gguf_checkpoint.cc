#include "engine/loader/gguf_checkpoint.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/loader/gguf_tokenizer.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

// A model file larger than this is not for this daemon: its weights could not be held in memory.
constexpr uint64_t kMaxModelFileBytes = uint64_t{1} << 40;
constexpr uint64_t kMaxNameBytes = 1024;
constexpr std::string_view kSupportedArchitectures = "llama";

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("GGUF: ", parts...);
}

// What must hold whatever the architecture.
absl::Status CheckGeneral(GgufMetadata* metadata) {
  ACUITY_ASSIGN_OR_RETURN(const std::string_view type,
                          metadata->String("general.type", kMaxNameBytes, "model"));
  if (type != "model") {
    return Bad("general.type is ", QuoteForError(type), "; only 'model' is supported");
  }
  // Version 2 of the block formats is the one that dequantise.h describes.
  ACUITY_RETURN_IF_ERROR(metadata->Integer("general.quantization_version", 2, 2, 2).status());
  ACUITY_ASSIGN_OR_RETURN(const std::string_view architecture,
                          metadata->String("general.architecture", kMaxNameBytes));
  if (architecture != kSupportedArchitectures) {
    return Bad("general.architecture is ", QuoteForError(architecture),
               "; supported: ", kSupportedArchitectures);
  }
  return absl::OkStatus();
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

class GgufCheckpoint : public Checkpoint {
 public:
  GgufCheckpoint(GgufFile file, uint64_t file_bytes, ModelSpec spec, TokenizerSpec tokenizer)
      : file_(std::move(file)),
        file_bytes_(file_bytes),
        spec_(std::move(spec)),
        tokenizer_(std::move(tokenizer)),
        stored_type_(CommonestType(file_)) {
    tensors_.reserve(file_.tensors.size());
    for (const GgufTensor& tensor : file_.tensors) {
      tensors_.push_back({std::string(tensor.name), std::string(tensor.type->name), tensor.dims[1],
                          tensor.dims[0]});
    }
  }

  void Own(std::unique_ptr<MappedFile> mapping) { mapping_ = std::move(mapping); }

  const ModelSpec& spec() const override { return spec_; }
  const TokenizerSpec& tokenizer() const override { return tokenizer_; }
  std::string_view stored_type() const override { return stored_type_; }
  uint64_t file_bytes() const override { return file_bytes_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

  const TensorInfo* Find(std::string_view name) const override {
    const GgufTensor* tensor = file_.FindTensor(name);
    return tensor == nullptr ? nullptr : &tensors_[tensor - file_.tensors.data()];
  }

  absl::Status ReadRows(const TensorInfo& info, int64_t row_begin, int64_t num_rows,
                        float* out) const override {
    const GgufTensor* tensor = file_.FindTensor(info.name);
    if (tensor == nullptr) {
      return InvalidArgument("no tensor ", QuoteForError(info.name), " in this checkpoint");
    }
    const int64_t rows = tensor->dims[1];
    if (row_begin < 0 || num_rows < 0 || row_begin > rows || num_rows > rows - row_begin) {
      return InvalidArgument("rows [", row_begin, ", +", num_rows, ") of ",
                             QuoteForError(info.name), ", which has ", rows);
    }
    const TensorType& type = *tensor->type;
    const int64_t blocks_per_row = tensor->dims[0] / type.elements_per_block;
    type.dequantise(tensor->data.data() + row_begin * blocks_per_row * type.bytes_per_block,
                    num_rows * blocks_per_row, out);
    return absl::OkStatus();
  }

 private:
  std::unique_ptr<MappedFile> mapping_;  // null if somebody else keeps the bytes
  const GgufFile file_;                  // views into the bytes
  const uint64_t file_bytes_;
  const ModelSpec spec_;
  const TokenizerSpec tokenizer_;
  const std::string_view stored_type_;
  std::vector<TensorInfo> tensors_;  // parallel to file_.tensors
};

absl::StatusOr<std::unique_ptr<GgufCheckpoint>> Build(std::span<const uint8_t> bytes) {
  ACUITY_ASSIGN_OR_RETURN(GgufFile file, ParseGguf(bytes));
  GgufMetadata metadata(&file);
  ACUITY_RETURN_IF_ERROR(CheckGeneral(&metadata));
  ACUITY_ASSIGN_OR_RETURN(ModelSpec spec, ReadLlamaSpec(&metadata));
  ACUITY_ASSIGN_OR_RETURN(TokenizerSpec tokenizer, ReadTokenizerSpec(&metadata));
  const int vocabulary = static_cast<int>(tokenizer.tokens.size());
  if (spec.vocab_size != 0 && spec.vocab_size != vocabulary) {
    return Bad("llama.vocab_size is ", spec.vocab_size, ", but tokenizer.ggml.tokens has ",
               vocabulary, " elements");
  }
  spec.vocab_size = vocabulary;
  ACUITY_RETURN_IF_ERROR(CheckLlamaTensors(file, &spec));
  return std::make_unique<GgufCheckpoint>(std::move(file), bytes.size(), std::move(spec),
                                          std::move(tokenizer));
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
