#include "engine/gpu/gpu_weights.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "engine/loader/status_util.h"
#include "engine/model/rope.h"
#include "kernels/gemm.h"

namespace acuity::engine {
namespace {

// Of each of the two blocks of pinned memory: some milliseconds of a copy.
constexpr int64_t kStagingBytes = int64_t{32} << 20;
// What one task unpacks.
constexpr int64_t kPieceBytes = int64_t{256} << 10;
// cuBLAS's widest loads need 16, copies like more.
constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Collects what is to be copied, with the places that shall point to it; then copies all of it.
class Uploader {
 public:
  void AddMatrix(const kernels::PackedWeight& matrix, const void** view) {
    Add({&matrix, nullptr, matrix.n, matrix.k, 2}, view);
  }
  // A null vector stays null.
  void AddVector(const float* values, int64_t size, const float** view) {
    if (values == nullptr) return;
    Add({nullptr, values, 1, size, sizeof(float)}, reinterpret_cast<const void**>(view));
  }
  void AddIntegers(const std::vector<int32_t>& values, const int32_t** view) {
    static_assert(sizeof(int32_t) == sizeof(float));  // copied as they are
    Add({nullptr, reinterpret_cast<const float*>(values.data()), 1,
         static_cast<int64_t>(values.size()), sizeof(float)},
        reinterpret_cast<const void**>(view));
  }
  void AddRoundedVector(const float* values, int64_t size, const void** view) {
    if (values != nullptr) Add({nullptr, values, 1, size, 2}, view);
  }

  absl::StatusOr<DeviceMemory> Upload(const kernels::ParallelFor& parallel, Device* device) {
    ACUITY_ASSIGN_OR_RETURN(DeviceMemory storage, device->Allocate("the weights", bytes_));
    const int64_t staging_bytes = std::max(kStagingBytes, largest_piece_);
    DeviceMemory staging[2];
    for (DeviceMemory& block : staging) {
      ACUITY_ASSIGN_OR_RETURN(block, device->AllocatePinned("copying the weights", staging_bytes));
    }
    int turn = 0;
    for (std::span<const Piece> rest(pieces_); !rest.empty(); turn ^= 1) {
      size_t count = 1;
      while (count < rest.size() && End(rest[count]) - rest[0].offset <= staging_bytes) ++count;
      auto* to = staging[turn].As<std::byte>();
      parallel(static_cast<int64_t>(count),
               [&](int64_t i) { Fill(rest[i], to + (rest[i].offset - rest[0].offset)); });
      // The other block's copy is done then: it may be filled during this one's.
      ACUITY_RETURN_IF_ERROR(device->Synchronise());
      ACUITY_RETURN_IF_ERROR(device->CopyToDevice(storage.As<std::byte>() + rest[0].offset, to,
                                                  End(rest[count - 1]) - rest[0].offset));
      rest = rest.subspan(count);
    }
    ACUITY_RETURN_IF_ERROR(device->Synchronise());
    for (const auto& [view, offset] : views_) *view = storage.As<std::byte>() + offset;
    return storage;
  }

 private:
  struct Source {
    const kernels::PackedWeight* matrix;  // or null
    const float* vector;
    int64_t rows, columns;
    int64_t element_bytes;  // 2: rounded to bfloat16
  };
  struct Piece {
    Source source;
    int64_t row, num_rows;
    int64_t offset;  // in the storage
  };

  static int64_t RowBytes(const Source& source) { return source.columns * source.element_bytes; }
  static int64_t End(const Piece& piece) {
    return piece.offset + piece.num_rows * RowBytes(piece.source);
  }

  void Add(const Source& source, const void** view) {
    views_.push_back({view, bytes_});
    const int64_t rows = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, RowBytes(source)));
    for (int64_t row = 0; row < source.rows; row += rows) {
      const int64_t count = std::min(rows, source.rows - row);
      pieces_.push_back({source, row, count, bytes_ + row * RowBytes(source)});
      largest_piece_ = std::max(largest_piece_, count * RowBytes(source));
    }
    bytes_ = Aligned(bytes_ + source.rows * RowBytes(source));
  }

  static void Fill(const Piece& piece, std::byte* to) {
    const Source& source = piece.source;
    std::vector<float> unpacked(source.matrix == nullptr ? 0 : source.columns);
    for (int64_t i = 0; i < piece.num_rows; ++i, to += RowBytes(source)) {
      const float* row = source.vector;
      if (source.matrix != nullptr) {
        kernels::UnpackRow(*source.matrix, piece.row + i, unpacked.data());
        row = unpacked.data();
      }
      if (source.element_bytes == sizeof(float)) {
        std::memcpy(to, row, static_cast<size_t>(RowBytes(source)));
      } else {
        auto* halves = reinterpret_cast<uint16_t*>(to);
        std::transform(row, row + source.columns, halves, kernels::FloatToBFloat16);
      }
    }
  }

  std::vector<Piece> pieces_;
  std::vector<std::pair<const void**, int64_t>> views_;
  int64_t bytes_ = 0, largest_piece_ = 0;
};

// Adds a model's weights. What it points to outlives the upload.
class ModelUploader {
 public:
  ModelUploader(const ModelSpec& spec, Uploader* uploader) : spec_(spec), uploader_(uploader) {
    for (const RopeSpec& rope : spec.ropes) {
      frequencies_.push_back(InverseFrequencies(rope));
      beyond_.push_back(FrequenciesBeyond(rope));
    }
    for (const LayerSpec& layer : spec.layers) windows_.push_back(layer.window);
  }

  void AddModel(const Weights& from, GpuWeights* to) {
    uploader_->AddMatrix(from.embedding, &to->embedding);
    if (spec_.learned_positions) uploader_->AddMatrix(from.positions, &to->positions);
    uploader_->AddIntegers(windows_, &to->windows);
    to->layers.resize(from.layers.size());
    for (size_t i = 0; i < from.layers.size(); ++i) {
      AddLayer(from.layers[i], &to->layers[i]);
      AddRope(spec_.layers[i].rope, &to->layers[i].rope);
      AddPolicy(spec_.layers[i].policy, &to->layers[i].policy);
    }
    AddNorm(from.output_norm, &to->output_norm);
    if (!spec_.tied_embeddings) AddLinear(from.output, &to->output);
  }

 private:
  void AddLinear(const Linear& from, GpuLinear* to) {
    to->n = from.weight.n;
    to->k = from.weight.k;
    uploader_->AddMatrix(from.weight, &to->weight);
    uploader_->AddRoundedVector(from.bias, from.weight.n, &to->bias);
  }
  void AddNorm(const NormWeights& from, GpuNorm* to) {
    uploader_->AddVector(from.weight, spec_.hidden_size, &to->weight);
    uploader_->AddVector(from.bias, spec_.hidden_size, &to->bias);
  }
  void AddLayer(const LayerWeights& from, GpuLayer* to) {
    AddNorm(from.attention_norm, &to->attention_norm);
    AddNorm(from.post_attention_norm, &to->post_attention_norm);
    AddNorm(from.ffn_norm, &to->ffn_norm);
    AddNorm(from.post_ffn_norm, &to->post_ffn_norm);
    AddLinear(from.qkv, &to->qkv);
    const int64_t dim = spec_.head_dim;
    const bool shared = spec_.qk_norm == QkNorm::kPerHead;
    uploader_->AddVector(from.q_norm, shared ? dim : spec_.num_heads * dim, &to->q_norm);
    uploader_->AddVector(from.k_norm, shared ? dim : spec_.num_kv_heads * dim, &to->k_norm);
    uploader_->AddVector(from.sinks, spec_.num_heads, &to->sinks);
    AddLinear(from.attention_out, &to->attention_out);
    if (spec_.experts.count > 0) AddLinear(from.router, &to->router);
    to->feed_forward.resize(from.feed_forward.size());
    for (size_t i = 0; i < from.feed_forward.size(); ++i) {
      AddLinear(from.feed_forward[i].in, &to->feed_forward[i].in);
      AddLinear(from.feed_forward[i].down, &to->feed_forward[i].down);
    }
  }
  void AddRope(int index, kernels::RopeParams* to) {
    if (index == LayerSpec::kNoRope) return;
    const RopeSpec& rope = spec_.ropes[static_cast<size_t>(index)];
    const std::vector<float>& frequencies = frequencies_[static_cast<size_t>(index)];
    const std::vector<float>& beyond = beyond_[static_cast<size_t>(index)];
    *to = {rope.style, rope.rotary_dim, nullptr, rope.magnitude, rope.knee, nullptr};
    const int64_t size = static_cast<int64_t>(frequencies.size());
    uploader_->AddVector(frequencies.data(), size, &to->inv_frequency);
    if (!beyond.empty()) uploader_->AddVector(beyond.data(), size, &to->inv_frequency_beyond);
  }
  void AddPolicy(const LayerPolicy& policy, kernels::LogitPolicy* to) {
    const kernels::LogitPolicy host = policy.view();
    *to = host;
    to->s = to->b = nullptr;
    uploader_->AddVector(host.s, spec_.num_heads, &to->s);
    uploader_->AddVector(host.b, spec_.num_heads, &to->b);
  }

  const ModelSpec& spec_;
  Uploader* const uploader_;
  std::vector<std::vector<float>> frequencies_, beyond_;  // of each rope
  std::vector<int32_t> windows_;                          // [num_layers]
};

}  // namespace

absl::StatusOr<GpuWeights> UploadWeights(const Weights& weights, const ModelSpec& spec,
                                         const kernels::ParallelFor& parallel, Device* device) {
  GpuWeights result;
  Uploader uploader;
  ModelUploader model(spec, &uploader);
  model.AddModel(weights, &result);
  ACUITY_ASSIGN_OR_RETURN(result.storage, uploader.Upload(parallel, device));
  if (spec.tied_embeddings) {
    result.output = {result.embedding, nullptr, weights.embedding.n, weights.embedding.k};
  }
  return result;
}

}  // namespace acuity::engine
