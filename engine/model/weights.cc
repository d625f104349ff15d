#include "engine/model/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <initializer_list>
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

  struct Part {
    std::string name;
    int64_t rows;
  };

  // Stacks the parts' rows into one matrix of `columns` inputs. *matrix stays where it is until
  // Read.
  absl::Status AddMatrix(std::initializer_list<Part> parts, int64_t columns,
                         kernels::PackedWeight* matrix) {
    int64_t rows = 0;
    for (const Part& part : parts) {
      absl::StatusOr<const Checkpoint::TensorInfo*> tensor = Find(part.name, part.rows, columns);
      if (!tensor.ok()) return tensor.status();
      AddTasks(**tensor, columns, matrix, rows);
      rows += part.rows;
    }
    *matrix = {dtype_, rows, columns, nullptr};
    matrices_.push_back(
        {matrix, Reserve(static_cast<int64_t>(kernels::PackedBytes(dtype_, rows, columns)))});
    return absl::OkStatus();
  }

  // *vector stays where it is until Read.
  absl::Status AddVector(const std::string& name, int64_t size, const float** vector) {
    absl::StatusOr<const Checkpoint::TensorInfo*> tensor = Find(name, 1, size);
    if (!tensor.ok()) return tensor.status();
    vectors_.push_back({*tensor, vector, Reserve(size * static_cast<int64_t>(sizeof(float)))});
    return absl::OkStatus();
  }

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
      auto* data = reinterpret_cast<float*>(storage->As<std::byte>() + vector.offset);
      *vector.view = data;
      absl::Status status = checkpoint_.ReadRows(*vector.tensor, 0, 1, data);
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
    const Checkpoint::TensorInfo* tensor;
    const float** view;
    int64_t offset;
  };
  struct Task {
    const Checkpoint::TensorInfo* tensor;
    int64_t row_begin, num_rows;
    const kernels::PackedWeight* matrix;
    int64_t matrix_row;
  };

  absl::StatusOr<const Checkpoint::TensorInfo*> Find(const std::string& name, int64_t rows,
                                                     int64_t columns) const {
    const Checkpoint::TensorInfo* tensor = checkpoint_.Find(name);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
    }
    if (tensor->rows != rows || tensor->columns != columns) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is [", tensor->rows, ", ",
                                                     tensor->columns, "], not [", rows, ", ",
                                                     columns, "] as the model's fields say"));
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
  void AddTasks(const Checkpoint::TensorInfo& tensor, int64_t columns,
                const kernels::PackedWeight* matrix, int64_t first_row) {
    const int64_t panels = std::max<int64_t>(1, kChunkFloats / (columns * kernels::kPanel));
    const int64_t chunk = panels * kernels::kPanel;
    for (int64_t row = 0; row < tensor.rows;) {
      const int64_t end = ((first_row + row) / chunk + 1) * chunk - first_row;
      const int64_t rows = std::min(tensor.rows, end) - row;
      tasks_.push_back({&tensor, row, rows, matrix, first_row + row});
      row += rows;
    }
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
  std::vector<Task> tasks_;
  int64_t bytes_ = 0;
};

absl::Status AddLayer(const ModelSpec& spec, int index, WeightReader* reader, LayerWeights* layer) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  const int64_t hidden = spec.hidden_size, ffn = spec.ffn_size;
  const int64_t q_rows = int64_t{spec.num_heads} * spec.head_dim;
  const int64_t kv_rows = int64_t{spec.num_kv_heads} * spec.head_dim;
  absl::Status status;
  status.Update(reader->AddVector(prefix + "attn_norm.weight", hidden, &layer->attention_norm));
  status.Update(reader->AddMatrix({{prefix + "attn_q.weight", q_rows},
                                   {prefix + "attn_k.weight", kv_rows},
                                   {prefix + "attn_v.weight", kv_rows}},
                                  hidden, &layer->qkv));
  status.Update(
      reader->AddMatrix({{prefix + "attn_output.weight", hidden}}, q_rows, &layer->attention_out));
  status.Update(reader->AddVector(prefix + "ffn_norm.weight", hidden, &layer->ffn_norm));
  status.Update(
      reader->AddMatrix({{prefix + "ffn_gate.weight", ffn}, {prefix + "ffn_up.weight", ffn}},
                        hidden, &layer->gate_up));
  status.Update(reader->AddMatrix({{prefix + "ffn_down.weight", hidden}}, ffn, &layer->down));
  return status;
}

}  // namespace

absl::StatusOr<Weights> LoadWeights(const Checkpoint& checkpoint, const ModelSpec& spec,
                                    kernels::DType dtype, const kernels::ParallelFor& parallel,
                                    const LoadProgress& on_load) {
  Weights weights;
  WeightReader reader(checkpoint, dtype, parallel, on_load);
  const int64_t vocab = spec.vocab_size, hidden = spec.hidden_size;
  absl::Status status =
      reader.AddMatrix({{"token_embd.weight", vocab}}, hidden, &weights.embedding);
  weights.layers.resize(spec.num_layers);
  for (int i = 0; i < spec.num_layers && status.ok(); ++i) {
    status = AddLayer(spec, i, &reader, &weights.layers[i]);
  }
  status.Update(reader.AddVector("output_norm.weight", hidden, &weights.output_norm));
  if (!spec.tied_embeddings) {
    status.Update(reader.AddMatrix({{"output.weight", vocab}}, hidden, &weights.output));
  }
  if (status.ok()) status = reader.Read(&weights.storage);
  if (!status.ok()) return status;
  if (spec.tied_embeddings) weights.output = weights.embedding;
  return weights;
}

}  // namespace acuity::engine
