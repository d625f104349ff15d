// A GGUF file's tensors under their canonical names (ModelTensors), which are GGUF's own, but for
// what some architectures stack.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/gguf.h"
#include "engine/loader/model_spec.h"
#include "engine/loader/model_tensors.h"

namespace acuity::engine {

// A canonical tensor in a file's: rows (of a vector: elements) from `first` on. Experts' matrices
// lie one below the other.
struct GgufTensorView {
  const GgufTensor* tensor = nullptr;
  int64_t first = 0;

  // Rows of the canonical tensor, whose rows have `columns` elements, to out [num_rows, columns].
  // A vector's rows are its elements. REQUIRES that they are whole blocks within it.
  void Read(int64_t begin_row, int64_t num_rows, int64_t columns, float* out) const;
};

// Finds the tensors of a model in a file's and remembers which were used.
class GgufTensorMap {
 public:
  // REQUIRES: *file outlives this.
  explicit GgufTensorMap(const GgufFile* file) : file_(*file), used_(file->tensors.size()) {}

  bool Has(std::string_view name) const { return file_.FindTensor(name) != nullptr; }

  // InvalidArgument names the tensor that is missing, or whose shape is wrong, and what it must be.
  // Q, K and V may be one tensor, attn_qkv, and so may gate and up, then called ffn_up. `ffn_norm`
  // is what the file calls that tensor.
  absl::StatusOr<GgufTensorView> Resolve(const ModelTensor& wanted, const ModelSpec& spec,
                                         std::string_view ffn_norm);
  // `size` positive and finite float32 numbers: divisors of a rotary embedding's frequencies.
  absl::StatusOr<std::vector<float>> ReadFactors(std::string_view name, int64_t size);
  // InvalidArgument names the first tensor of the file that nothing has used.
  absl::Status CheckAllUsed(std::string_view architecture) const;

 private:
  // A tensor of the file that stacks several, and the row at which the wanted one begins.
  struct Stack {
    std::string_view stem;  // empty: it is never stacked
    int64_t first = 0, total = 0;
  };
  static Stack StackOf(std::string_view stem, const ModelSpec& spec);
  bool IsStacked(std::string_view prefix, const Stack& stack) const;
  absl::StatusOr<const GgufTensor*> Take(std::string_view name, const std::vector<int64_t>& shape);

  const GgufFile& file_;
  std::vector<bool> used_;  // parallel to file_.tensors
};

}  // namespace acuity::engine
