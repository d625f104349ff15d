#include "engine/loader/hf_tensors.h"

#include <algorithm>
#include <utility>

#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += Concat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

struct CanonicalName {
  std::string_view layer;   // "3", or empty
  std::string_view stem;    // "attn_q"
  std::string_view ending;  // ".weight"
};

CanonicalName Split(std::string_view name) {
  CanonicalName split;
  if (name.starts_with("blk.")) {
    name.remove_prefix(4);
    split.layer = name.substr(0, name.find('.'));
    name.remove_prefix(split.layer.size() + 1);
  }
  split.stem = name.substr(0, name.rfind('.'));
  split.ending = name.substr(split.stem.size());
  return split;
}

// Where the rows of a canonical tensor begin in one that stacks several, and how many those are.
struct Stack {
  int64_t begin, total;
};

Stack StackOf(std::string_view stem, const ModelSpec& spec) {
  const int64_t q = int64_t{spec.num_heads} * spec.head_dim;
  const int64_t kv = int64_t{spec.num_kv_heads} * spec.head_dim;
  if (stem == "attn_q") return {0, q + 2 * kv};
  if (stem == "attn_k") return {q, q + 2 * kv};
  if (stem == "attn_v") return {q + kv, q + 2 * kv};
  return {stem == "ffn_up" ? spec.ffn_size : 0, 2 * int64_t{spec.ffn_size}};
}

// Which of its kind: Q, K, V are 0, 1, 2; gate and up are 0, 1.
int64_t Order(std::string_view stem) {
  if (stem == "attn_k" || stem == "ffn_up_exps") return 1;
  return stem == "attn_v" ? 2 : 0;
}

}  // namespace

absl::Status HfTensorView::Read(int64_t begin, int64_t count, float* out) const {
  std::vector<float> span;
  int64_t piece_begin = 0;
  for (const Piece& piece : pieces) {
    const int64_t first = std::max(begin - piece_begin, int64_t{0});
    const int64_t last = std::min(begin + count - piece_begin, piece.rows);
    piece_begin += piece.rows;
    for (int64_t row = first; row < last;) {
      // As many rows as lie in one block.
      const int64_t within = row % piece.block;
      const int64_t rows = std::min(last - row, piece.block - within);
      const int64_t offset =
          piece.offset + row / piece.block * piece.block_stride + within * piece.row_stride;
      if (piece.column_stride == 1 && piece.row_stride == columns) {
        ACUITY_RETURN_IF_ERROR(ReadAsFloat(*piece.tensor, offset, rows * columns, out));
      } else {
        const int64_t width = (rows - 1) * piece.row_stride + 1;
        span.resize(static_cast<size_t>(width));
        for (int64_t c = 0; c < columns; ++c) {
          ACUITY_RETURN_IF_ERROR(
              ReadAsFloat(*piece.tensor, offset + c * piece.column_stride, width, span.data()));
          for (int64_t r = 0; r < rows; ++r) {
            out[r * columns + c] = span[static_cast<size_t>(r * piece.row_stride)];
          }
        }
      }
      if (add != 0) {
        for (int64_t i = 0; i < rows * columns; ++i) out[i] += add;
      }
      out += rows * columns;
      row += rows;
    }
  }
  return absl::OkStatus();
}

HfTensorMap::HfTensorMap(const SafetensorsSet& tensors, std::span<const HfTensorRule> rules,
                         std::string_view base, const ModelSpec& spec)
    : tensors_(tensors),
      rules_(rules),
      base_(std::any_of(tensors.tensors().begin(), tensors.tensors().end(),
                        [base](const SafetensorsTensor& t) { return t.name.starts_with(base); })
                ? std::string_view()
                : base),
      spec_(spec),
      used_(tensors.tensors().size()) {}

const HfTensorRule* HfTensorMap::RuleFor(std::string_view stem, std::string_view ending) const {
  for (const HfTensorRule& rule : rules_) {
    std::string_view rest = rule.canonical;
    if (!rest.starts_with(stem)) continue;
    rest.remove_prefix(stem.size());
    if (rest.empty() || rest == ending) return &rule;
  }
  return nullptr;
}

std::string HfTensorMap::FileName(std::string_view pattern, std::string_view layer,
                                  int64_t number) const {
  if (pattern.starts_with(base_)) pattern.remove_prefix(base_.size());
  std::string name;
  for (const char c : pattern) {
    if (c == '*') {
      name += layer;
    } else if (c == '#') {
      name += Concat(number);
    } else {
      name += c;
    }
  }
  return name;
}

const SafetensorsTensor* HfTensorMap::Use(std::string_view pattern, int layer) {
  const SafetensorsTensor* tensor = tensors_.Find(FileName(pattern, Concat(layer), 0));
  if (tensor != nullptr) used_[static_cast<size_t>(tensor - tensors_.tensors().data())] = true;
  return tensor;
}

absl::StatusOr<const SafetensorsTensor*> HfTensorMap::Take(const std::string& name,
                                                           std::span<const int64_t> shape) {
  const SafetensorsTensor* tensor = tensors_.Find(name);
  if (tensor == nullptr) return InvalidArgument("tensor '", name, "' is missing");
  if (!std::ranges::equal(tensor->shape(), shape)) {
    return InvalidArgument("tensor '", name, "' has shape ", ShapeText(tensor->shape()),
                           "; it must be ", ShapeText(shape));
  }
  if (tensor->type->to_float == nullptr) {
    return InvalidArgument("tensor '", name, "' has type ", tensor->type->name,
                           ", which holds no weights");
  }
  used_[static_cast<size_t>(tensor - tensors_.tensors().data())] = true;
  return tensor;
}

absl::Status HfTensorMap::AddPieces(const HfTensorRule& rule, const ModelTensor& wanted,
                                    std::string_view stem, const std::string& pattern,
                                    std::string_view layer, HfTensorView* view) {
  const bool vector = wanted.rows == 1;
  const int64_t rows = view->rows, columns = view->columns;
  const auto add = [&](int64_t number, std::vector<int64_t> shape,
                       HfTensorView::Piece piece) -> absl::Status {
    ACUITY_ASSIGN_OR_RETURN(piece.tensor, Take(FileName(pattern, layer, number), shape));
    if (piece.block == 0) piece.block = piece.rows;
    view->pieces.push_back(piece);
    return absl::OkStatus();
  };
  // Of a matrix [n, columns], or of a vector [n].
  const auto shape_of = [&](int64_t n) {
    return vector ? std::vector<int64_t>{n} : std::vector<int64_t>{n, columns};
  };
  const HfTensorView::Piece plain = {
      .tensor = nullptr, .rows = rows, .block = 0, .row_stride = columns};
  const Stack stack = StackOf(stem, spec_);
  HfTensorView::Piece piece = plain;
  switch (rule.layout) {
    case HfLayout::kWhole:
      // A few vectors of the hub are stored with the heads apart: [heads, head_dim].
      if (vector && spec_.qk_norm == QkNorm::kOwnWeights && stem.ends_with("_norm") &&
          stem.starts_with("attn_") && rows % spec_.head_dim == 0 && stem != "attn_norm") {
        return add(0, {rows / spec_.head_dim, spec_.head_dim}, plain);
      }
      return add(0, shape_of(rows), plain);
    case HfLayout::kStacked:
      piece.offset = stack.begin * columns;
      return add(0, shape_of(stack.total), piece);
    case HfLayout::kByHead:
      piece.block = spec_.head_dim;
      piece.block_stride = 3 * spec_.head_dim * columns;
      piece.offset = Order(stem) * spec_.head_dim * columns;
      return add(0, shape_of(3 * rows), piece);
    case HfLayout::kTransposed:
      piece.row_stride = 1;
      piece.column_stride = rows;
      return add(0, {columns, rows}, piece);
    case HfLayout::kTransposedStacked:
      piece.offset = stack.begin;
      piece.row_stride = 1;
      piece.column_stride = stack.total;
      return add(0, {columns, stack.total}, piece);
    case HfLayout::kExperts:
    case HfLayout::kHeads: {
      const int64_t count =
          rule.layout == HfLayout::kHeads ? rows / spec_.head_dim : int64_t{spec_.experts.count};
      piece.rows = rows / count;
      for (int64_t i = 0; i < count; ++i) {
        ACUITY_RETURN_IF_ERROR(add(i, shape_of(piece.rows), piece));
      }
      return absl::OkStatus();
    }
    case HfLayout::kExpertMatrices:
    case HfLayout::kExpertPairs: {
      const int64_t experts = spec_.experts.count;
      const int64_t step = rule.layout == HfLayout::kExpertPairs ? 2 : 1;
      piece.block = rows / experts;
      piece.row_stride = step;
      piece.column_stride = step * piece.block;
      piece.block_stride = columns * piece.column_stride;
      piece.offset = step == 2 ? Order(stem) : 0;
      if (vector) return add(0, {experts, step * piece.block}, piece);
      return add(0, {experts, columns, step * piece.block}, piece);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<HfTensorView> HfTensorMap::Resolve(const ModelTensor& wanted) {
  const CanonicalName name = Split(wanted.name);
  const HfTensorRule* rule = RuleFor(name.stem, name.ending);
  if (rule == nullptr) {
    return InvalidArgument("'", wanted.name, "' has no name in Hugging Face's ", spec_.architecture,
                           " models");
  }
  const std::string pattern = rule->canonical == name.stem ? Concat(rule->pattern, name.ending)
                                                           : std::string(rule->pattern);
  const bool vector = wanted.rows == 1;
  HfTensorView view;
  view.rows = vector ? wanted.columns : wanted.rows;
  view.columns = vector ? 1 : wanted.columns;
  view.add = rule->add;
  ACUITY_RETURN_IF_ERROR(AddPieces(*rule, wanted, name.stem, pattern, name.layer, &view));
  return view;
}

absl::Status HfTensorMap::CheckAllUsed(std::span<const std::string_view> ignored) const {
  for (size_t i = 0; i < used_.size(); ++i) {
    const std::string_view name = tensors_.tensors()[i].name;
    const bool buffer = std::any_of(ignored.begin(), ignored.end(),
                                    [name](std::string_view end) { return name.ends_with(end); });
    if (used_[i] || buffer) continue;
    return InvalidArgument("tensor '", name, "' is not part of a ", spec_.architecture,
                           " model of this config.json; ignoring it would change the results");
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
