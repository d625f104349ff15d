// A random model that is small enough to be computed by hand, in double precision.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "kernels/dtype.h"

namespace acuity::engine {

// A checkpoint in memory: the tensors that `spec` needs, filled with random numbers from `seed`.
class TinyCheckpoint final : public Checkpoint {
 public:
  TinyCheckpoint(ModelSpec spec, uint64_t seed);

  const ModelSpec& spec() const override { return spec_; }
  const TokenizerSpec& tokenizer() const override { return tokenizer_; }
  std::string_view stored_type() const override { return "F32"; }
  uint64_t file_bytes() const override { return 0; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* Find(std::string_view name) const override;
  absl::Status ReadRows(const TensorInfo& tensor, int64_t row_begin, int64_t num_rows,
                        float* out) const override;

  const std::vector<float>& Data(const std::string& name) const { return data_.at(name); }
  void Remove(const std::string& name);
  // Makes every matrix what bfloat16 holds exactly.
  void RoundMatrices();
  void Scale(const std::string& name, float factor);
  // Makes ReadRows of this tensor fail.
  void Damage(const std::string& name) { damaged_ = name; }

 private:
  void Add(const std::string& name, int64_t rows, int64_t columns, float mean, float deviation);
  void AddNorm(const std::string& stem);
  void AddFeedForward(const std::string& prefix);
  void AddLinear(const std::string& stem, int64_t rows, int64_t columns, float deviation,
                 bool bias);

  ModelSpec spec_;
  TokenizerSpec tokenizer_;
  std::vector<TensorInfo> infos_;
  std::map<std::string, std::vector<float>> data_;
  std::string damaged_;
  uint64_t state_;
};

// Five layers that between them have softmax, SSMax with s and b per head, log-n, a window and no
// rotary.
ModelSpec TinySpec();

struct ReferenceOutput {
  std::vector<std::vector<double>> logits;                        // [tokens][vocab]
  std::vector<std::vector<std::vector<double>>> entropy;          // [layers][tokens][heads]
  std::vector<std::vector<std::vector<double>>> max_probability;  // the same
};

// The whole sequence in one pass, every sum in double precision; weights as the checkpoint has
// them, K and V rounded to `kv_dtype`.
ReferenceOutput ReferenceForward(const TinyCheckpoint& checkpoint, const ModelSpec& spec,
                                 std::span<const int32_t> tokens, kernels::DType kv_dtype);

}  // namespace acuity::engine
