// The forward pass on the CPU, driven by a ModelSpec.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/model/experts.h"
#include "engine/model/memory.h"
#include "engine/model/model_runner.h"
#include "engine/model/weights.h"
#include "kernels/gemm.h"

namespace acuity::engine {

class Decoder final : public ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const Checkpoint& checkpoint,
                                                             ModelSpec spec, ModelOptions options,
                                                             kernels::ParallelFor parallel);

  absl::Status Start(const Batch& batch) override;
  absl::Status Finish(StepOutput* output) override;
  void ZeroBlocks(std::span<const int32_t> blocks) override;

  const ModelSpec& spec() const override { return spec_; }
  const ModelOptions& options() const override { return options_; }
  int num_blocks() const override { return num_blocks_; }
  int64_t bytes_per_block() const override { return bytes_per_block_; }
  int64_t weight_bytes() const override { return weights_.bytes(); }
  int64_t saturated_values() const override { return static_cast<int64_t>(saturated_values_); }

 private:
  // The split of one step's attention, shared by the layers with the same window.
  struct WindowPlan {
    int window;
    kernels::AttentionPlan plan;
  };

  Decoder(ModelSpec spec, ModelOptions options, kernels::ParallelFor parallel);
  absl::Status AllocatePages();
  absl::Status AllocateActivations();
  void PrepareLayers();

  absl::Status Forward(const Batch& batch);
  void Embed(const Batch& batch);
  absl::Status PlanStep(const Batch& batch);
  void Attend(int layer, const Batch& batch);
  void MeasureSpans(int layer, const kernels::AttentionParams& params, const Batch& batch);
  // The sums of the rows measured, of all layers' statistics.
  void SumRows(const Batch& batch);
  void NormaliseQk(const LayerWeights& weights, int64_t rows);
  void AddAttentionOut(const LayerWeights& weights, int64_t rows);
  // What the feed-forward network reads: normed_, or the residual stream itself.
  const float* FeedForwardInput(const LayerWeights& weights, int64_t rows);
  void AddFeedForward(const LayerWeights& weights, const float* x, int64_t rows);
  // Adds x linear^T, normalised by `post_norm` if the spec has it, to the residual stream.
  void AddBranch(const float* x, int64_t rows, const Linear& linear, const NormWeights& post_norm);
  // Adds branch_ likewise.
  void AddBranchOutput(const NormWeights& post_norm, int64_t rows);
  // branch_ = what the row's experts say of x.
  void RouteToExperts(const LayerWeights& weights, const float* x, int64_t rows);
  // Moves the rows whose logits or hidden states are wanted to the front of the residual stream and
  // of the attention's output.
  void KeepRows(const Batch& batch);
  // Of the rows kept: the final norm, then the logits of those that want them; the hidden states of
  // the others stay in residual_.
  void ComputeOutputs(const Batch& batch);
  void Normalise(const float* x, const NormWeights& weights, int64_t rows, float* out) const;
  void Gemm(const float* x, int64_t rows, const Linear& linear, bool accumulate, float* y) const;

  int64_t query_width() const { return int64_t{spec_.num_heads} * spec_.head_dim; }
  int64_t qkv_width() const {
    return int64_t{spec_.num_heads + 2 * spec_.num_kv_heads} * spec_.head_dim;
  }
  // Of one layer's K (V follows it).
  int64_t page_bytes() const { return bytes_per_block_ / (2 * spec_.num_layers); }
  std::byte* KPages(int layer) const;
  std::byte* VPages(int layer) const { return KPages(layer) + num_blocks_ * page_bytes(); }
  kernels::RaggedBatch Ragged(const Batch& batch) const;

  const ModelSpec spec_;
  const ModelOptions options_;
  const kernels::ParallelFor parallel_;
  const kernels::AttentionShape shape_;
  Weights weights_;
  std::vector<std::vector<float>> inv_frequency_;         // of each rope: [rotary_dim / 2]
  std::vector<std::vector<float>> inv_frequency_beyond_;  // the same beyond its knee, or empty
  std::vector<WindowPlan> plans_;                         // one per distinct window
  std::vector<int> plan_of_layer_;                        // [num_layers]
  std::vector<int32_t> windows_;                          // [num_layers]

  int num_blocks_ = 0;
  int64_t bytes_per_block_ = 0;
  uint64_t saturated_values_ = 0;  // since the start
  Memory pages_;  // [num_layers, {K, V}, num_blocks, num_kv_heads, block_size, head_dim]

  std::vector<int32_t> kept_rows_;  // logit_rows and hidden_rows of the step, ascending

  Memory residual_;   // [rows, hidden]
  Memory normed_;     // [rows, hidden]
  Memory qkv_;        // [rows, qkv_width]
  Memory attention_;  // [rows, num_heads, head_dim]
  Memory gate_up_;    // [rows, 2 * ffn], or [rows, ffn] without a gate
  Memory hidden_;     // [rows, ffn]
  Memory branch_;     // [rows, hidden] what is not added to the residual stream as it is, or empty
  // With experts only.
  ExpertRouter router_;
  Memory router_logits_;  // [rows, experts]
  Memory gathered_;       // [rows, hidden] what one expert reads
  Memory routed_;         // [rows * experts per token, hidden] what the experts wrote, by slot
  Memory logits_;         // [logit rows, vocab]
  Memory stats_;          // [num_layers, rows, num_heads]
  Memory workspace_;      // of RunAttention; grows
  std::vector<float> span_mass_;        // see StepOutput; grows
  std::vector<kernels::RowSums> sums_;  // likewise
  StepOutput output_;                   // of the step that is begun
};

}  // namespace acuity::engine
