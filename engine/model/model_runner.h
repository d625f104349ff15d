// The decoder: one forward pass for every ModelSpec; on the CPU here, on a GPU in engine/gpu. The
// only folder beside that one's device that includes LibTorch, which owns the weights' and
// activations' memory; nothing of it shows here.
//
// Deterministic on the CPU: a token's logits depend on its own sequence only, bit for bit, whatever
// else is in the batch and however its prompt was cut into chunks. (On a GPU: docs/gpu-engine.md.)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "kernels/attention_span.h"
#include "kernels/row_sums.h"
#include "kernels/sample.h"

namespace acuity::engine {

// Told how many of the weights' bytes are in memory after each piece that was read; by any thread,
// several at a time: thread-safe, and quick. Empty: nobody asks.
using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

struct ModelOptions {
  kernels::DType weight_dtype = kernels::DType::kBFloat16;
  kernels::DType kv_dtype = kernels::DType::kBFloat16;
  int block_size = 16;
  // Blocks = kv_memory_bytes / bytes per block; too small for one block: InvalidArgument. 0, on a
  // GPU only: what is free there once all else is allocated.
  int64_t kv_memory_bytes = 0;
  int max_batch_tokens = 512;  // rows of a step
  int max_batch_sequences = 64;
  int max_logit_rows = 128;  // those that tokens are drawn from among them
  LoadProgress on_load;
};

// A row after which the runner draws a token itself.
struct Draw {
  int32_t row;
  kernels::SampleRow sample;
};

// One step's ragged batch, in arrays whose capacity is reused. Rows of a sequence are contiguous.
struct Batch {
  // Stands for the token that the step before draws as its `draw`-th, where that one's Finish is
  // still to come.
  static constexpr int32_t DrawnBefore(size_t draw) { return -2 - static_cast<int32_t>(draw); }

  std::vector<int32_t> tokens;        // [rows]
  std::vector<int32_t> positions;     // [rows]
  std::vector<int64_t> slots;         // [rows] block * block_size + offset, where row's K and V go
  std::vector<int32_t> qo_indptr;     // [num_seqs + 1]
  std::vector<int32_t> kv_len;        // [num_seqs]
  std::vector<int32_t> block_tables;  // [num_seqs, block_table_stride]
  int block_table_stride = 0;
  std::vector<int32_t> logit_rows;   // rows whose logits are wanted, ascending
  std::vector<int32_t> hidden_rows;  // others, whose final hidden states are wanted, ascending
  std::vector<kernels::MeasuredRows> measured;  // rows whose attention is summed, ascending
  std::vector<kernels::WatchedRow> watched;     // rows whose spans are measured
  // Rows that are neither logit_rows nor hidden_rows, of whose logits no more is wanted than a
  // token: ascending. Empty unless the runner draws().
  std::vector<Draw> draws;

  int num_rows() const { return static_cast<int>(tokens.size()); }
  int num_seqs() const { return static_cast<int>(kv_len.size()); }
  bool needs_stats() const { return !measured.empty() || !watched.empty(); }
};

// Views into the runner's buffers, valid until the next Start.
struct StepOutput {
  std::span<const float> logits;  // [logit_rows.size(), vocab_size]
  // [draws.size()] what engine/sample draws from the same logits; -1: there is a NaN or +infinity
  // among them, or none is finite.
  std::span<const int32_t> tokens;
  std::span<const float> hidden;  // [hidden_rows.size(), hidden_size], after the final norm
  std::span<const kernels::RowSums> sums;  // of batch.measured, each at its `at`
  // [num_layers, of each watched row in turn: num_heads x num_spans]
  std::span<const float> span_mass;
};

class ModelRunner {
 public:
  // Reads and packs every weight (with `parallel`), allocates KV pages and step buffers. Status of
  // the checkpoint or of an allocation that failed.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const Checkpoint& checkpoint,
                                                             ModelSpec spec, ModelOptions options,
                                                             kernels::ParallelFor parallel);
  virtual ~ModelRunner() = default;

  // A step has two halves: Start begins it, and if that is OK, one Finish waits for it. A runner
  // that draws() may have a second step begun before the first is finished; they finish in order.
  // REQUIRES a batch within the options' limits, which may go once Start returns. Internal if
  // LibTorch or a kernel fails: that step has no output, and no other one suffers. One thread at a
  // time. Allocates nothing in a steady state.
  virtual absl::Status Start(const Batch& batch) = 0;
  virtual absl::Status Finish(StepOutput* output) = 0;
  // Both halves. REQUIRES that no step is begun.
  absl::Status Step(const Batch& batch, StepOutput* output) {
    *output = {};
    const absl::Status started = Start(batch);
    return started.ok() ? Finish(output) : started;
  }
  // Overwrites blocks with zeros before the next step to be started, behind those that are: what a
  // corrupted sequence leaves must not reach another.
  virtual void ZeroBlocks(std::span<const int32_t> blocks) = 0;

  // Whether it draws tokens (Batch::draws); never changes.
  virtual bool draws() const { return false; }
  virtual const ModelSpec& spec() const = 0;
  virtual const ModelOptions& options() const = 0;
  virtual int num_blocks() const = 0;
  virtual int64_t bytes_per_block() const = 0;  // K and V of all layers
  virtual int64_t weight_bytes() const = 0;
  // What it runs on: "cpu", or a GPU's name.
  virtual std::string device() const { return "cpu"; }
  // Elements of keys and values, since the start and to the last Finish, that 8-bit pages hold as
  // 448 because they are beyond it (kernels::SaturatesFloat8). By the thread that calls Start.
  virtual int64_t saturated_values() const { return 0; }
  // Not OK once the machine below is lost: why. Every later step fails with it. By the thread that
  // calls Start.
  virtual absl::Status health() const { return absl::OkStatus(); }
};

// As ModelRunner::Create.
using RunnerFactory = std::function<absl::StatusOr<std::unique_ptr<ModelRunner>>(
    const Checkpoint& checkpoint, ModelSpec spec, ModelOptions options,
    kernels::ParallelFor parallel)>;

}  // namespace acuity::engine
