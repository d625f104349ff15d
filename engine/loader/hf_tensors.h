// Hugging Face tensors under their canonical names: which tensor, and which part of it, is what.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/model_spec.h"
#include "engine/loader/model_tensors.h"
#include "engine/loader/safetensors.h"

namespace acuity::engine {

// How a canonical tensor lies in the file's.
enum class HfLayout : uint8_t {
  kWhole,     // as it is: [rows, columns], or [size]
  kHeadRows,  // a vector as [heads, head_dim]
  kStacked,   // Q, K, V (or gate, up) lie one below the other in one tensor: attn_q, attn_k, attn_v
              // (ffn_gate, ffn_up) are its rows. Of biases too.
  kByHead,    // [heads, 3, head_dim, hidden]: each head's Q, K, V (GPT-NeoX). Of biases too.
  kTransposed,         // [columns, rows] (GPT-2's Conv1D)
  kTransposedStacked,  // [hidden, Q | K | V]
  kExperts,            // a tensor per expert: '#' in the pattern is its number
  kHeads,              // a vector per head: '#' is its number
  kExpertMatrices,     // [experts, columns, rows] (GPT-OSS)
  kExpertPairs,        // [experts, hidden, 2 ffn], gate and up in turn (GPT-OSS). Of biases too.
};

// One canonical tensor, or a pair of weight and bias.
struct HfTensorRule {
  // "attn_q" for attn_q.weight and attn_q.bias, or a name with its ending: "attn_q.bias".
  std::string_view canonical;
  // '*' is the layer's number. Without an ending in `canonical`, ".weight" or ".bias" is appended.
  std::string_view pattern;
  HfLayout layout = HfLayout::kWhole;
  float add = 0;  // to every element (Gemma's norms store the weight minus 1)
};

// A canonical tensor in terms of elements of the file's tensors. As a matrix (a vector is one of a
// single column), row r of a piece, column c, is element
//   offset + (r / block) * block_stride + (r % block) * row_stride + c * column_stride.
struct HfTensorView {
  struct Piece {
    const SafetensorsTensor* tensor = nullptr;
    int64_t rows = 0;
    int64_t offset = 0;
    int64_t block = 0, block_stride = 0;
    int64_t row_stride = 0, column_stride = 1;
  };
  int64_t rows = 0, columns = 0;  // a vector's rows are its elements
  std::vector<Piece> pieces;      // one below the other
  float add = 0;

  // Rows [begin, begin + count) to out [count, columns].
  absl::Status Read(int64_t begin, int64_t count, float* out) const;
};

// Finds the tensors of a model in a file's and remembers which were used.
class HfTensorMap {
 public:
  // `base` is the part of the patterns that a file without a language-model head leaves out
  // ("model."); if no tensor of the file begins with it, it is cut off every pattern. Keeps
  // references to the tensors and the rules.
  HfTensorMap(const SafetensorsSet& tensors, std::span<const HfTensorRule> rules,
              std::string_view base, const ModelSpec& spec);

  // InvalidArgument names the tensor that is missing, or whose shape or type is wrong, and what it
  // must be.
  absl::StatusOr<HfTensorView> Resolve(const ModelTensor& wanted);
  // The file's tensor that `pattern` names in `layer`, marked as used, or null.
  const SafetensorsTensor* Use(std::string_view pattern, int layer);
  // InvalidArgument names the first tensor of the file that nothing has used. Those whose names end
  // in one of `ignored` are buffers that older files carry.
  absl::Status CheckAllUsed(std::span<const std::string_view> ignored) const;

 private:
  const HfTensorRule* RuleFor(std::string_view stem, std::string_view ending) const;
  std::string FileName(std::string_view pattern, std::string_view layer, int64_t number) const;
  absl::StatusOr<const SafetensorsTensor*> Take(const std::string& name,
                                                std::span<const int64_t> shape);
  // `count` tensors of `shape`, each holding `piece`.
  struct Place {
    int64_t count = 1;
    std::vector<int64_t> shape;
    HfTensorView::Piece piece;
  };
  Place PlaceOf(HfLayout layout, std::string_view stem, bool vector, int64_t rows,
                int64_t columns) const;

  const SafetensorsSet& tensors_;
  const std::span<const HfTensorRule> rules_;
  const std::string_view base_;  // to be cut off, or empty
  const ModelSpec spec_;
  std::vector<bool> used_;  // parallel to the set's tensors
};

}  // namespace acuity::engine
