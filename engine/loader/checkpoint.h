// A model on disk: its spec, its tokenizer and its tensors, read through one interface whatever the
// format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/model_spec.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// Immutable after Open; thread-safe. The file stays mapped while the checkpoint lives, and must not
// be shrunk or overwritten meanwhile (SIGBUS): replace a model by renaming a new file over it.
class Checkpoint {
 public:
  // Opens a GGUF file (v2, v3), or a Hugging Face model directory (see docs/models.md). NotFound if
  // there is none; InvalidArgument names the file, the field or tensor, its value and the limit if
  // anything in it is damaged, contradictory, unread or not supported. Never crashes on any bytes;
  // allocates no more than the files' size + 64 MB.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);
  virtual ~Checkpoint() = default;

  virtual const ModelSpec& spec() const = 0;
  virtual const TokenizerSpec& tokenizer() const = 0;
  virtual std::string_view stored_type() const = 0;  // the commonest tensor type, "Q4_1"
  virtual uint64_t file_bytes() const = 0;

  struct TensorInfo {
    std::string name;     // see Find for the names
    std::string type;     // "F32", "Q4_1", ...
    int64_t rows = 0;     // outer dimension (1 for vectors)
    int64_t columns = 0;  // contiguous dimension
  };
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  // Null if the checkpoint has no tensor of that name. Names and shapes are those of
  // model_tensors.h, whatever the file's: a tensor may be a part of one of the file's, or several.
  virtual const TensorInfo* Find(std::string_view name) const = 0;
  // Dequantises rows [row_begin, row_begin + num_rows) of a tensor into out [num_rows, columns].
  virtual absl::Status ReadRows(const TensorInfo& tensor, int64_t row_begin, int64_t num_rows,
                                float* out) const = 0;
};

}  // namespace acuity::engine
