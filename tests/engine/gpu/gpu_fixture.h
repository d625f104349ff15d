// Runners of the same tiny model on the CPU and on the emulated GPU, and batches for both.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "engine/gpu/gpu_decoder.h"
#include "tests/engine/gpu/host_device.h"
#include "tests/engine/model/batch_maker.h"
#include "tests/engine/model/tiny_model.h"

namespace acuity::engine {

inline constexpr int kBlockSize = 16;
inline constexpr int kStride = 4;  // block table entries: sequences of at most 64 tokens
inline constexpr uint64_t kSeed = 3;

// Three layers of a llama: rotary halves, two query heads for each of two KV heads.
inline ModelSpec SmallLlama() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.num_layers = 3;
  spec.hidden_size = 64;
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dim = 64;
  spec.ffn_size = 96;
  spec.vocab_size = 101;
  spec.max_context = 128;
  spec.ropes = {{.theta = 1000, .rotary_dim = 64}};
  spec.softmax_scale = 0.125f;
  spec.tied_embeddings = true;
  spec.layers.resize(3);
  return spec;
}

inline ModelOptions SmallOptions(kernels::DType dtype = kernels::DType::kBFloat16) {
  ModelOptions options;
  options.weight_dtype = options.kv_dtype = dtype;
  options.block_size = kBlockSize;
  options.kv_memory_bytes = 4 << 20;
  options.max_batch_tokens = 48;
  options.max_batch_sequences = 8;
  options.max_logit_rows = 48;
  return options;
}

struct EmulatedGpu {
  std::shared_ptr<HostDevice::Control> control = std::make_shared<HostDevice::Control>();
  std::unique_ptr<ModelRunner> runner;

  GpuDecoder& decoder() const { return static_cast<GpuDecoder&>(*runner); }
};

inline absl::StatusOr<std::unique_ptr<ModelRunner>> CreateOnGpu(
    const TinyCheckpoint& checkpoint, const ModelSpec& spec, const ModelOptions& options,
    const std::shared_ptr<HostDevice::Control>& control) {
  return GpuDecoder::Create(std::make_unique<HostDevice>(control), checkpoint, spec, options, {});
}

inline EmulatedGpu MakeGpu(const TinyCheckpoint& checkpoint,
                           const ModelOptions& options = SmallOptions()) {
  EmulatedGpu gpu;
  auto runner = CreateOnGpu(checkpoint, checkpoint.spec(), options, gpu.control);
  EXPECT_TRUE(runner.ok()) << runner.status();
  if (runner.ok()) gpu.runner = *std::move(runner);
  return gpu;
}

inline std::unique_ptr<ModelRunner> MakeCpu(const TinyCheckpoint& checkpoint,
                                            const ModelOptions& options = SmallOptions()) {
  auto runner = ModelRunner::Create(checkpoint, checkpoint.spec(), options, {});
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

inline std::vector<int32_t> Tokens(int count, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * i * 7 + i * 13 + seed * 31) % 101);
  return tokens;
}

// Of sequence i: out of order, and of nobody else.
inline std::vector<int32_t> BlocksOf(int sequence) {
  const int first = kStride * sequence;
  return {first + 2, first, first + 3, first + 1};
}

struct Result {
  absl::Status status;
  std::vector<float> logits, hidden, span_mass;
  std::vector<kernels::RowSums> sums;
  std::vector<int32_t> tokens;
};

inline Result Execute(ModelRunner& runner, const Batch& batch) {
  StepOutput output;
  Result result;
  result.status = runner.Step(batch, &output);
  result.logits.assign(output.logits.begin(), output.logits.end());
  result.hidden.assign(output.hidden.begin(), output.hidden.end());
  result.span_mass.assign(output.span_mass.begin(), output.span_mass.end());
  result.sums.assign(output.sums.begin(), output.sums.end());
  result.tokens.assign(output.tokens.begin(), output.tokens.end());
  return result;
}

// One token of each sequence, which has `first[i]` tokens in the cache.
inline Batch DecodeBatch(const std::vector<int>& sequences, const std::vector<int>& first,
                         int seed) {
  Batch batch;
  ClearBatch(kStride, &batch);
  for (size_t i = 0; i < sequences.size(); ++i) {
    AddSequence(Tokens(1, seed + static_cast<int>(i)), first[i], BlocksOf(sequences[i]), kBlockSize,
                LogitRows::kLast, &batch);
  }
  return batch;
}

// Root of the mean square of a - b, relative to b's; NaN sticks out.
inline double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace acuity::engine
