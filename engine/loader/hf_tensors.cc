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

HfTensorMap::Place HfTensorMap::PlaceOf(HfLayout layout, std::string_view stem, bool vector,
                                        int64_t rows, int64_t columns) const {
  const Stack stack = StackOf(stem, spec_);
  const int64_t dim = spec_.head_dim, experts = spec_.experts.count;
  Place place;
  HfTensorView::Piece& piece = place.piece;
  piece.rows = piece.block = rows;
  piece.row_stride = columns;
  int64_t outer = rows;  // of a matrix [outer, columns], or of a vector [outer]
  switch (layout) {
    case HfLayout::kWhole:
      break;
    case HfLayout::kHeadRows:
      place.shape = {rows / dim, dim};
      return place;
    case HfLayout::kStacked:
      piece.offset = stack.begin * columns;
      outer = stack.total;
      break;
    case HfLayout::kByHead:
      piece.block = dim;
      piece.block_stride = 3 * dim * columns;
      piece.offset = Order(stem) * dim * columns;
      outer = 3 * rows;
      break;
    case HfLayout::kTransposed:
    case HfLayout::kTransposedStacked: {
      const bool stacked = layout == HfLayout::kTransposedStacked;
      piece.offset = stacked ? stack.begin : 0;
      piece.row_stride = 1;
      piece.column_stride = stacked ? stack.total : rows;
      place.shape = {columns, piece.column_stride};
      return place;
    }
    case HfLayout::kExperts:
    case HfLayout::kHeads:
      place.count = layout == HfLayout::kHeads ? rows / dim : experts;
      outer = piece.rows = piece.block = rows / place.count;
      break;
    case HfLayout::kExpertMatrices:
    case HfLayout::kExpertPairs:
      piece.block = rows / experts;
      piece.row_stride = layout == HfLayout::kExpertPairs ? 2 : 1;
      piece.column_stride = piece.row_stride * piece.block;
      piece.block_stride = columns * piece.column_stride;
      piece.offset = layout == HfLayout::kExpertPairs ? Order(stem) : 0;
      place.shape = {experts, columns, piece.column_stride};
      if (vector) place.shape.erase(place.shape.begin() + 1);
      return place;
  }
  place.shape = {outer, columns};
  if (vector) place.shape.pop_back();
  return place;
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
  const Place place = PlaceOf(rule->layout, name.stem, vector, view.rows, view.columns);
  for (int64_t i = 0; i < place.count; ++i) {
    HfTensorView::Piece piece = place.piece;
    ACUITY_ASSIGN_OR_RETURN(piece.tensor, Take(FileName(pattern, name.layer, i), place.shape));
    view.pieces.push_back(piece);
  }
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
