// The forward pass on a GPU, driven by the same ModelSpec as engine/model/decoder.h: bfloat16
// weights, activations and KV pages, a float32 residual stream, kernels of kernels/cuda between the
// device's matrix products. docs/gpu-engine.md says what has been proven of it.
//
// A step is one copy to the device, launches that depend on its StepShape alone, and one copy back.
// Where all sequences decode, the shape is a bucket; its second step captures the launches, and
// later ones replay them. While a step runs, the next one can be begun (ModelRunner::Start): all
// but the pinned arrays is the stream's, one step after the other.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "engine/gpu/device.h"
#include "engine/gpu/gpu_weights.h"
#include "engine/gpu/step_inputs.h"
#include "engine/model/model_runner.h"

namespace acuity::engine {

class GpuDecoder final : public ModelRunner {
 public:
  // As ModelRunner::Create. InvalidArgument names the field of the spec or the options that no
  // kernel serves; ResourceExhausted: the device's memory is too small.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(std::unique_ptr<Device> device,
                                                             const Checkpoint& checkpoint,
                                                             ModelSpec spec, ModelOptions options,
                                                             const kernels::ParallelFor& parallel);
  ~GpuDecoder() override;

  absl::Status Start(const Batch& batch) override;
  absl::Status Finish(StepOutput* output) override;
  void ZeroBlocks(std::span<const int32_t> blocks) override;

  const ModelSpec& spec() const override { return spec_; }
  const ModelOptions& options() const override { return options_; }
  bool draws() const override { return true; }
  int num_blocks() const override { return num_blocks_; }
  int64_t bytes_per_block() const override { return bytes_per_block_; }
  int64_t weight_bytes() const override { return weights_.storage.bytes(); }
  std::string device() const override { return device_->name(); }
  int64_t saturated_values() const override { return saturated_values_; }
  absl::Status health() const override { return device_->health(); }

  // Steps that replayed a graph, and why there will be none any more (OK: there may be).
  int64_t replayed_steps() const { return replayed_steps_; }
  const absl::Status& graph_status() const { return graph_status_; }

 private:
  // Sequences and keys of a bucket, and whether it measures attention.
  using Bucket = std::tuple<int, int, bool>;
  // The rows that a launch computes: all of the step, or those whose outputs are wanted.
  struct Rows {
    int64_t count;
    float* residual;        // [count, hidden]
    const void* attention;  // [count, query_width] bfloat16
  };

  // What a step has to itself between Start and Finish.
  struct Slot {
    explicit Slot(StepInputs step_inputs) : inputs(std::move(step_inputs)) {}

    StepInputs inputs;
    DeviceMemory pinned_inputs, pinned_outputs;  // grow
    // Of the outputs, behind the logits.
    int64_t tokens_at = 0, sums_at = 0, masses_at = 0, saturated_at = 0, hidden_at = 0;
    size_t logits = 0, tokens = 0;  // how many of them are wanted
    std::vector<int32_t> zeroed_blocks;
    absl::Status status;                          // of what was waited for before Finish was called
    std::vector<float> hidden_states, span_mass;  // as StepOutput has them
  };

  GpuDecoder(std::unique_ptr<Device> device, ModelSpec spec, ModelOptions options);
  absl::Status AllocateBuffers();
  absl::Status AllocatePages();

  // gpu_step.cc: a step around its launches.
  absl::Status Begin(const Batch& batch, Slot* slot);
  // Grows what a shape needs more of than any before it; graphs point to the device's old memory,
  // and go.
  absl::Status Reserve(Slot* slot);
  absl::Status Grow(int64_t bytes, bool pinned, DeviceMemory* memory);
  // Waits for the device. What went wrong is the step's that is begun, if there is one.
  absl::Status Settle();
  // Copies back what the step's output needs, and points `output` to it.
  absl::Status ReadBack(const Batch& batch, Slot* slot);
  absl::Status ReadBackLogits(const Batch& batch, const Slot& slot);
  void Deliver(Slot* slot, StepOutput* output);
  static int MarkOf(int64_t step) { return static_cast<int>(step % Device::kMarks); }
  Slot& At(int64_t step) { return slots_[static_cast<size_t>(MarkOf(step))]; }
  absl::Status EnqueueOrReplay(const StepShape& shape);
  absl::Status EnqueueZeroing();
  // Everything between the copies: of `shape`, and of nothing else that changes.
  absl::Status Enqueue(const StepShape& shape);
  void Embed(const StepShape& shape);
  void Attend(int layer, const StepShape& shape);
  Rows KeepRows(const StepShape& shape);
  void FeedForward(const GpuLayer& weights, const Rows& rows);
  void SumRows(const StepShape& shape);
  void ComputeLogits(const StepShape& shape);
  // Tokens from the last of the logits, which are lost unless their row is greedy.
  void DrawTokens(const StepShape& shape);
  // residual += what branch_ holds, if `add`; normed_ = the norm of it, or it itself, rounded.
  void AddAndNormalise(const Rows& rows, bool add, const GpuNorm& norm);
  // hidden_ = the activation of gate_up_.
  void Activate(int64_t rows);
  // branch_ = what the rows' experts say of normed_. Waits for the device.
  void RouteToExperts(const GpuLayer& weights, const Rows& rows);
  // branch_ = [post_norm](x linear^T).
  void Branch(const void* x, const Rows& rows, const GpuLinear& linear, const GpuNorm& post_norm);
  // branch_ = the norm of wide_.
  void PostNormalise(const Rows& rows, const GpuNorm& norm);
  // y = x linear^T in bfloat16, and in float32; there, with a bias, the sum is rounded before it is
  // widened (in branch_), as in a model of bfloat16.
  void Gemm(const void* x, int64_t rows, const GpuLinear& linear, void* y) {
    Multiply(x, rows, linear, false, y);
  }
  void WideGemm(const void* x, int64_t rows, const GpuLinear& linear, float* y);
  void Multiply(const void* x, int64_t rows, const GpuLinear& linear, bool float_out, void* y);
  // y = x, [rows, dim] of bfloat16, in float32.
  void Widen(const void* x, int64_t rows, int64_t dim, float* y);
  // Of the launches since Enqueue began, remembers the first that failed.
  void Check(const char* error);
  void Check(absl::Status status) { enqueued_.Update(status); }

  int64_t query_width() const { return int64_t{spec_.num_heads} * spec_.head_dim; }
  int64_t qkv_width() const {
    return int64_t{spec_.num_heads + 2 * spec_.num_kv_heads} * spec_.head_dim;
  }
  int64_t page_bytes() const { return bytes_per_block_ / (2 * spec_.num_layers); }
  std::byte* KPages(int layer) const;
  std::byte* VPages(int layer) const { return KPages(layer) + num_blocks_ * page_bytes(); }
  // Of the shape's span masses.
  int64_t mass_bytes(const StepShape& shape) const;
  // An input of the step, on the device.
  template <typename T>
  const T* Input(int64_t offset) const {
    return reinterpret_cast<const T*>(inputs_.As<std::byte>() + offset);
  }

  const std::unique_ptr<Device> device_;  // first: memory ends before it
  const ModelSpec spec_;
  const ModelOptions options_;
  const kernels::AttentionShape shape_;
  GpuWeights weights_;
  std::vector<int> plan_of_layer_;    // [num_layers]
  std::vector<Slot> slots_;           // [Device::kMarks]
  int64_t begun_ = 0, finished_ = 0;  // steps
  const StepInputs* step_ = nullptr;  // of the step that is being enqueued

  int num_blocks_ = 0;
  int64_t bytes_per_block_ = 0;
  DeviceMemory pages_;  // [num_layers, {K, V}, num_blocks, num_kv_heads, block_size, head_dim]
  DeviceMemory pools_;  // [num_layers, {K, V}] where each begins
  std::vector<int32_t> zeroed_blocks_;  // by the next step, distinct
  int64_t saturated_values_ = 0;        // of the steps that are finished

  // On the device; rows are max_batch_tokens.
  DeviceMemory residual_, kept_residual_;  // [rows, hidden] float32
  DeviceMemory wide_;                      // [rows, hidden] float32: a branch before its post-norm
  DeviceMemory normed_, branch_;           // [rows, hidden]
  DeviceMemory qkv_;                       // [rows, qkv_width]
  DeviceMemory queries_, attention_;       // [rows, query_width] float32
  DeviceMemory rounded_attention_, kept_attention_;  // [rows, query_width]
  DeviceMemory gate_up_;    // [rows, ffn], twice that with a gate; of experts [slots, ...]
  DeviceMemory hidden_;     // [rows, ffn]; of experts [slots, ffn]
  DeviceMemory logits_;     // [max_logit_rows, vocab] float32
  DeviceMemory tokens_;     // [max_logit_rows] drawn from the last of the step's logits
  DeviceMemory stats_;      // [num_layers, rows, heads] RowStats
  DeviceMemory saturated_;  // [1] uint64, with 8-bit pages only
  // With experts only, as kernels/cuda/experts.h has them; slots are rows * experts per token.
  DeviceMemory router_logits_, chosen_, choice_weights_, choice_slots_, slot_rows_, slot_begin_;
  DeviceMemory gathered_, routed_;  // [slots, hidden]
  DeviceMemory pinned_slot_begin_;
  // Grow.
  DeviceMemory inputs_, workspace_, masses_, sums_;

  absl::Status enqueued_;
  std::map<Bucket, std::unique_ptr<Device::Graph>> graphs_;  // null: the bucket has run once
  absl::Status graph_status_;
  int64_t replayed_steps_ = 0;
};

}  // namespace acuity::engine
