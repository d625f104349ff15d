#include "engine/model/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::engine {
namespace {

// Floats that one task dequantises before it packs them: 256 KB stay in a core's L2 cache.
constexpr int64_t kChunkFloats = 65536;
constexpr int64_t kZeroBytes = int64_t{2} << 20;

constexpr int64_t kAlignment = 64;

// Collects what is to be read; Read then allocates all of it at once and reads it in one parallel
// loop.
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, kernels::DType dtype,
               const kernels::ParallelFor& parallel, const LoadProgress& on_load)
      : checkpoint_(checkpoint), dtype_(dtype), parallel_(parallel), on_load_(on_load) {}

  // Part `index` of `count` equal ones that `rows` rows (of a vector: elements) were cut into.
  struct Part {
    std::string name;
    int64_t rows;
    int64_t index = 0, count = 1;
  };

  // Stacks the parts' rows into one matrix of `columns` inputs. *matrix stays where it is until
  // Read.
  void AddMatrix(const std::vector<Part>& parts, int64_t columns, kernels::PackedWeight* matrix) {
    int64_t rows = 0;
    for (const Part& part : parts) {
      const Checkpoint::TensorInfo* tensor = Find(part.name, part.rows * part.count, columns);
      if (tensor == nullptr) return;
      AddTasks(*tensor, part, columns, matrix, rows);
      rows += part.rows;
    }
    *matrix = {dtype_, rows, columns, nullptr};
    matrices_.push_back(
        {matrix, Reserve(static_cast<int64_t>(kernels::PackedBytes(dtype_, rows, columns)))});
  }

  // Stacks the parts' elements into one vector. *vector stays where it is until Read.
  void AddVector(const std::vector<Part>& parts, const float** vector) {
    int64_t size = 0;
    for (const Part& part : parts) size += part.rows;
    int64_t offset = Reserve(size * static_cast<int64_t>(sizeof(float)));
    vectors_.push_back({vector, offset});
    for (const Part& part : parts) {
      const Checkpoint::TensorInfo* tensor = Find(part.name, 1, part.rows * part.count);
      if (tensor == nullptr) return;
      slices_.push_back({tensor, part, offset});
      offset += part.rows * static_cast<int64_t>(sizeof(float));
    }
  }

  // The first tensor that was missing or of another shape.
  const absl::Status& status() const { return status_; }

  // The first failure in the order of the tasks, whichever thread met it.
  absl::Status Read(Memory* storage) {
    absl::StatusOr<Memory> memory = Memory::Allocate("the weights", bytes_);
    if (!memory.ok()) return memory.status();
    *storage = *std::move(memory);
    storage->PreferHugePages();
    Zero(storage->As<std::byte>());
    for (const Matrix& matrix : matrices_) {
      matrix.view->data = storage->As<std::byte>() + matrix.offset;
    }
    for (const Vector& vector : vectors_) {
      *vector.view = reinterpret_cast<float*>(storage->As<std::byte>() + vector.offset);
    }
    for (const Slice& slice : slices_) {
      absl::Status status = ReadSlice(slice, storage->As<std::byte>());
      if (!status.ok()) return status;
    }
    std::vector<absl::Status> failures(tasks_.size());
    const int64_t total = RowBytes(tasks_);
    std::atomic<int64_t> done{0};
    parallel_(static_cast<int64_t>(tasks_.size()), [&](int64_t i) {
      failures[i] = ReadTask(tasks_[i]);
      const int64_t bytes = RowBytes(std::span(&tasks_[i], 1));
      if (on_load_) on_load_(done += bytes, total);
    });
    for (absl::Status& status : failures) {
      if (!status.ok()) return std::move(status);
    }
    return absl::OkStatus();
  }

 private:
  struct Matrix {
    kernels::PackedWeight* view;
    int64_t offset;  // in the storage
  };
  struct Vector {
    const float** view;
    int64_t offset;
  };
  struct Slice {  // of a vector
    const Checkpoint::TensorInfo* tensor;
    Part part;
    int64_t offset;
  };
  struct Task {
    const Checkpoint::TensorInfo* tensor;
    int64_t row_begin, num_rows;
    const kernels::PackedWeight* matrix;
    int64_t matrix_row;
  };

  // Null, and an error in status_, if it is missing or of another shape.
  const Checkpoint::TensorInfo* Find(const std::string& name, int64_t rows, int64_t columns) {
    const Checkpoint::TensorInfo* tensor = checkpoint_.Find(name);
    if (tensor == nullptr) {
      status_.Update(absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing")));
    } else if (tensor->rows != rows || tensor->columns != columns) {
      status_.Update(absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is [", tensor->rows, ", ", tensor->columns, "], not [",
                       rows, ", ", columns, "] as the model's fields say")));
      return nullptr;
    }
    return tensor;
  }

  int64_t Reserve(int64_t bytes) {
    const int64_t offset = bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  }

  void Zero(std::byte* data) const {
    parallel_((bytes_ + kZeroBytes - 1) / kZeroBytes, [&](int64_t i) {
      const int64_t begin = i * kZeroBytes;
      std::memset(data + begin, 0, static_cast<size_t>(std::min(kZeroBytes, bytes_ - begin)));
    });
  }

  // Chunks end at panel boundaries where they can: two threads then rarely write to one cache line.
  void AddTasks(const Checkpoint::TensorInfo& tensor, const Part& part, int64_t columns,
                const kernels::PackedWeight* matrix, int64_t first_row) {
    const int64_t part_begin = part.index * part.rows;
    const int64_t panels = std::max<int64_t>(1, kChunkFloats / (columns * kernels::kPanel));
    const int64_t chunk = panels * kernels::kPanel;
    for (int64_t row = 0; row < part.rows;) {
      const int64_t end = ((first_row + row) / chunk + 1) * chunk - first_row;
      const int64_t rows = std::min(part.rows, end) - row;
      tasks_.push_back({&tensor, part_begin + row, rows, matrix, first_row + row});
      row += rows;
    }
  }

  absl::Status ReadSlice(const Slice& slice, std::byte* storage) const {
    std::vector<float> whole(static_cast<size_t>(slice.tensor->columns));
    absl::Status status = checkpoint_.ReadRows(*slice.tensor, 0, 1, whole.data());
    if (status.ok()) {
      std::memcpy(storage + slice.offset, whole.data() + slice.part.index * slice.part.rows,
                  static_cast<size_t>(slice.part.rows) * sizeof(float));
    }
    return status;
  }

  // Of the tasks' rows, packed; the padding of panels apart.
  int64_t RowBytes(std::span<const Task> tasks) const {
    int64_t elements = 0;
    for (const Task& task : tasks) elements += task.num_rows * task.matrix->k;
    return elements * static_cast<int64_t>(kernels::SizeOf(dtype_));
  }

  absl::Status ReadTask(const Task& task) const {
    const auto rows = std::make_unique_for_overwrite<float[]>(task.num_rows * task.matrix->k);
    absl::Status status =
        checkpoint_.ReadRows(*task.tensor, task.row_begin, task.num_rows, rows.get());
    if (status.ok()) {
      kernels::PackRows(rows.get(), task.matrix_row, task.num_rows, *task.matrix);
    }
    return status;
  }

  const Checkpoint& checkpoint_;
  const kernels::DType dtype_;
  const kernels::ParallelFor& parallel_;
  const LoadProgress& on_load_;
  std::vector<Matrix> matrices_;
  std::vector<Vector> vectors_;
  std::vector<Slice> slices_;
  std::vector<Task> tasks_;
  int64_t bytes_ = 0;
  absl::Status status_;
};

// Adds the tensors of a model by their canonical names.
class ModelReader {
 public:
  using Part = WeightReader::Part;

  ModelReader(const ModelSpec& spec, WeightReader* reader) : spec_(spec), reader_(reader) {}

  void AddModel(Weights* weights) {
    const int64_t vocab = spec_.vocab_size, hidden = spec_.hidden_size;
    reader_->AddMatrix({{"token_embd.weight", vocab}}, hidden, &weights->embedding);
    if (spec_.learned_positions) {
      reader_->AddMatrix({{"position_embd.weight", spec_.max_context}}, hidden,
                         &weights->positions);
    }
    weights->layers.resize(spec_.num_layers);
    for (int i = 0; i < spec_.num_layers; ++i) {
      prefix_ = absl::StrCat("blk.", i, ".");
      AddAttention(&weights->layers[i]);
      AddFeedForward(&weights->layers[i]);
    }
    prefix_.clear();
    AddNorm("output_norm", &weights->output_norm);
    if (!spec_.tied_embeddings) AddLinear({{"output", vocab}}, hidden, false, &weights->output);
  }

 private:
  // The parts' names are stems: `stem`.weight and `stem`.bias.
  void AddLinear(const std::vector<Part>& stems, int64_t columns, bool bias, Linear* linear) {
    std::vector<Part> weights, biases;
    for (const Part& stem : stems) {
      for (auto [parts, kind] : {std::pair(&weights, ".weight"), {&biases, ".bias"}}) {
        parts->push_back(stem);
        parts->back().name = absl::StrCat(prefix_, stem.name, kind);
      }
    }
    reader_->AddMatrix(weights, columns, &linear->weight);
    if (bias) reader_->AddVector(biases, &linear->bias);
  }

  void AddNorm(const char* stem, NormWeights* norm) {
    const std::string name = absl::StrCat(prefix_, stem);
    reader_->AddVector({{name + ".weight", spec_.hidden_size}}, &norm->weight);
    if (spec_.norm_bias) reader_->AddVector({{name + ".bias", spec_.hidden_size}}, &norm->bias);
  }

  void AddAttention(LayerWeights* layer) {
    const int64_t hidden = spec_.hidden_size, dim = spec_.head_dim;
    const int64_t q_rows = spec_.num_heads * dim, kv_rows = spec_.num_kv_heads * dim;
    if (spec_.pre_norm) AddNorm("attn_norm", &layer->attention_norm);
    AddLinear({{"attn_q", q_rows}, {"attn_k", kv_rows}, {"attn_v", kv_rows}}, hidden,
              spec_.qkv_bias, &layer->qkv);
    if (spec_.qk_norm != QkNorm::kNone) {
      const bool one_head = spec_.qk_norm == QkNorm::kPerHead;
      reader_->AddVector({{prefix_ + "attn_q_norm.weight", one_head ? dim : q_rows}},
                         &layer->q_norm);
      reader_->AddVector({{prefix_ + "attn_k_norm.weight", one_head ? dim : kv_rows}},
                         &layer->k_norm);
    }
    if (spec_.sinks) {
      reader_->AddVector({{prefix_ + "attn_sinks.weight", spec_.num_heads}}, &layer->sinks);
    }
    AddLinear({{"attn_output", hidden}}, q_rows, spec_.attention_out_bias, &layer->attention_out);
    if (spec_.post_norm) AddNorm("post_attention_norm", &layer->post_attention_norm);
  }

  void AddFeedForward(LayerWeights* layer) {
    const int64_t hidden = spec_.hidden_size, ffn = spec_.ffn_size;
    const int64_t experts = spec_.experts.count, copies = std::max<int64_t>(experts, 1);
    const std::string suffix = experts > 0 ? "_exps" : "";
    if (spec_.pre_norm && !spec_.shared_norm) AddNorm("ffn_norm", &layer->ffn_norm);
    if (experts > 0) {
      AddLinear({{"ffn_gate_inp", experts}}, hidden, spec_.experts.router_bias, &layer->router);
    }
    layer->feed_forward.resize(static_cast<size_t>(copies));
    for (int64_t i = 0; i < copies; ++i) {
      FeedForwardWeights& one = layer->feed_forward[static_cast<size_t>(i)];
      std::vector<Part> in = {{"ffn_up" + suffix, ffn, i, copies}};
      if (spec_.gated_ffn) in.insert(in.begin(), {"ffn_gate" + suffix, ffn, i, copies});
      AddLinear(in, hidden, spec_.ffn_bias, &one.in);
      AddLinear({{"ffn_down" + suffix, hidden, i, copies}}, ffn, spec_.ffn_bias, &one.down);
    }
    if (spec_.post_norm) AddNorm("post_ffw_norm", &layer->post_ffn_norm);
  }

  const ModelSpec& spec_;
  WeightReader* const reader_;
  std::string prefix_;  // of the layer
};

}  // namespace

absl::StatusOr<Weights> LoadWeights(const Checkpoint& checkpoint, const ModelSpec& spec,
                                    kernels::DType dtype, const kernels::ParallelFor& parallel,
                                    const LoadProgress& on_load) {
  Weights weights;
  WeightReader reader(checkpoint, dtype, parallel, on_load);
  ModelReader(spec, &reader).AddModel(&weights);
  absl::Status status = reader.status();
  if (status.ok()) status = reader.Read(&weights.storage);
  if (!status.ok()) return status;
  if (spec.tied_embeddings) weights.output.weight = weights.embedding;
  for (LayerWeights& layer : weights.layers) {
    if (spec.shared_norm) layer.ffn_norm = layer.attention_norm;
  }
  return weights;
}

}  // namespace acuity::engine
