#include "engine/loader/gguf_tensors.h"

#include <limits>

#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("GGUF: ", parts...);
}

// The shape in the file, contiguous dimension first, of a tensor that is not stacked with others.
std::vector<int64_t> ShapeOf(const ModelTensor& wanted, std::string_view stem,
                             const ModelSpec& spec) {
  const bool vector = wanted.rows == 1;
  if (stem.ends_with("_exps")) {
    const int64_t experts = spec.experts.count;
    if (vector) return {wanted.columns / experts, experts};
    return {wanted.columns, wanted.rows / experts, experts};
  }
  if (spec.qk_norm == QkNorm::kOwnWeights && (stem == "attn_q_norm" || stem == "attn_k_norm")) {
    return {spec.head_dim, wanted.columns / spec.head_dim};
  }
  if (vector) return {wanted.columns};
  return {wanted.columns, wanted.rows};
}

}  // namespace

GgufTensorMap::Stack GgufTensorMap::StackOf(std::string_view stem, const ModelSpec& spec) {
  const int64_t q = int64_t{spec.num_heads} * spec.head_dim;
  const int64_t kv = int64_t{spec.num_kv_heads} * spec.head_dim;
  if (stem == "attn_q") return {"attn_qkv", 0, q + 2 * kv};
  if (stem == "attn_k") return {"attn_qkv", q, q + 2 * kv};
  if (stem == "attn_v") return {"attn_qkv", q + kv, q + 2 * kv};
  const int64_t ffn = spec.ffn_size;
  if (stem == "ffn_gate" && spec.gated_ffn) return {"ffn_up", 0, 2 * ffn};
  if (stem == "ffn_up" && spec.gated_ffn) return {"ffn_up", ffn, 2 * ffn};
  return {};
}

bool GgufTensorMap::IsStacked(std::string_view prefix, const Stack& stack) const {
  if (stack.stem.empty()) return false;
  const GgufTensor* tensor = file_.FindTensor(Concat(prefix, stack.stem, ".weight"));
  return tensor != nullptr && (stack.stem == "attn_qkv" || tensor->dims[1] == stack.total);
}

void GgufTensorView::Read(int64_t begin_row, int64_t num_rows, int64_t columns, float* out) const {
  const TensorType& type = *tensor->type;
  const int64_t begin_block = (first + begin_row) * columns / type.elements_per_block;
  type.dequantise(tensor->data.data() + begin_block * type.bytes_per_block,
                  num_rows * columns / type.elements_per_block, out);
}

absl::StatusOr<const GgufTensor*> GgufTensorMap::Take(std::string_view name,
                                                      const std::vector<int64_t>& shape) {
  const GgufTensor* tensor = file_.FindTensor(name);
  if (tensor == nullptr) return Bad("tensor '", name, "' is missing");
  int64_t wanted[kMaxGgufDims] = {1, 1, 1, 1};
  bool equal = true;
  for (size_t i = 0; i < kMaxGgufDims; ++i) {
    if (i < shape.size()) wanted[i] = shape[i];
    equal = equal && tensor->dims[i] == wanted[i];
  }
  if (!equal) {
    const int64_t* const is = tensor->dims;
    return Bad("tensor '", name, "' has shape [", is[0], ", ", is[1], ", ", is[2], ", ", is[3],
               "]; it must be [", wanted[0], ", ", wanted[1], ", ", wanted[2], ", ", wanted[3],
               "]");
  }
  used_[static_cast<size_t>(tensor - file_.tensors.data())] = true;
  return tensor;
}

absl::StatusOr<GgufTensorView> GgufTensorMap::Resolve(const ModelTensor& wanted,
                                                      const ModelSpec& spec,
                                                      std::string_view ffn_norm) {
  const size_t dot = wanted.name.rfind('.');
  const size_t stem_begin = wanted.name.rfind('.', dot - 1) + 1;  // 0 if there is no other dot
  const std::string_view whole = wanted.name;
  const std::string_view prefix = whole.substr(0, stem_begin), ending = whole.substr(dot);
  std::string_view stem = whole.substr(stem_begin, dot - stem_begin);
  if (stem == "ffn_norm") stem = ffn_norm;

  GgufTensorView view;
  std::vector<int64_t> shape = ShapeOf(wanted, stem, spec);
  const Stack stack = StackOf(stem, spec);
  if (IsStacked(prefix, stack)) {
    stem = stack.stem;
    view.first = stack.first;
    shape.back() = stack.total;
  }
  ACUITY_ASSIGN_OR_RETURN(view.tensor, Take(Concat(prefix, stem, ending), shape));
  // Matrices' rows are whole blocks. Parts of vectors may not be.
  const int64_t block = view.tensor->type->elements_per_block;
  if (wanted.rows == 1 && (view.first % block != 0 || wanted.columns % block != 0)) {
    return Bad("tensor '", view.tensor->name, "' has type ", view.tensor->type->name,
               ", whose blocks of ", block, " elements do not fit '", wanted.name, "'");
  }
  return view;
}

absl::StatusOr<std::vector<float>> GgufTensorMap::ReadFactors(std::string_view name, int64_t size) {
  ACUITY_ASSIGN_OR_RETURN(const GgufTensor* tensor, Take(name, {size}));
  if (tensor->type->name != "F32") {
    return Bad("tensor '", name, "' has type ", tensor->type->name, "; it must be F32");
  }
  std::vector<float> factors(static_cast<size_t>(size));
  tensor->type->dequantise(tensor->data.data(), size, factors.data());
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0 && factors[i] <= std::numeric_limits<float>::max())) {
      return Bad("tensor '", name, "' has element ", i, " = ", factors[i],
                 "; it must be positive and finite");
    }
  }
  return factors;
}

absl::Status GgufTensorMap::CheckAllUsed(std::string_view architecture) const {
  for (size_t i = 0; i < used_.size(); ++i) {
    if (used_[i]) continue;
    return Bad("tensor ", QuoteForError(file_.tensors[i].name), " is not part of a ", architecture,
               " model of this size; ignoring it would change the results");
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
