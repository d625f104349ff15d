// What a step of the decoder on a GPU reads, laid out in one block of memory for one copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/model_runner.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_span.h"
#include "kernels/sample.h"

namespace acuity::engine {

// Sizes and nothing else: all that the launches of a step depend on. Steps of equal shape enqueue
// the same work, whatever their batches hold, so that a graph captured for one serves the others.
struct StepShape {
  int rows = 0, seqs = 0;      // with padding
  int block_table_stride = 0;  // of the padded table
  // Of a decode bucket, how many keys a sequence has at most; 0: the shape is exactly the batch's.
  int bucket_keys = 0;
  bool stats = false;
  int measured = 0;        // with padding; 0: no sums
  bool keeps_all = false;  // the rows whose outputs are wanted are all, in order
  int logit_rows = 0;      // that have logits; the last `draws` of them are drawn from
  int draws = 0;
  int hidden_rows = 0;
  // No launch of a bucket depends on these two.
  int zeroed_blocks = 0;
  int64_t sums = 0;                                  // of the measured rows
  int spans = 0, longest_span = 0, span_masses = 0;  // of a layer
  std::vector<kernels::cuda::PlanCapacity> plans;    // one per distinct window
  int64_t workspace_floats = 0;

  // Where the outputs of the batch's row `row` are, the index-th of those that want the same: a
  // bucket has all rows in their order, whatever they want; elsewhere they are sorted by that.
  int PlaceOf(int row, size_t index) const {
    return bucket_keys > 0 ? row : static_cast<int>(index);
  }
};

// Where the arrays of a shape lie, in bytes, each at a multiple of 16.
struct InputOffsets {
  int64_t tokens = 0, positions = 0, slots = 0, qo_indptr = 0, kv_len = 0, block_tables = 0;
  int64_t kept_rows = 0;  // [logits wanted, drawn, hidden states wanted], unless all are kept
  int64_t measured = 0, draws = 0, zeroed_blocks = 0, spans = 0;
  std::vector<int64_t> plans;
  int64_t end = 0;
};

// Reused from step to step: allocates nothing in a steady state.
class StepInputs {
 public:
  // `windows`: the model's distinct ones. A batch in which every sequence decodes one token is
  // padded to a bucket: a power of two of sequences, at most `max_bucket`, and of keys.
  StepInputs(kernels::AttentionShape attention, int num_layers, std::vector<int> windows,
             int max_bucket);

  // REQUIRES a batch in which BatchProblem finds nothing. Keeps pointers into neither.
  void Plan(const Batch& batch, std::span<const int32_t> zeroed_blocks);
  const StepShape& shape() const { return shape_; }
  const InputOffsets& offsets() const { return offsets_; }
  // Where the batch's draws are among the step's, ascending.
  std::span<const int32_t> draw_places() const { return draw_places_; }
  // Of the batch that was planned: writes offsets().end bytes to `to`, aligned to 16. Padding: rows
  // without a token or a slot, sequences without rows or keys, nothing measured. A bucket draws
  // from all of its rows, greedily from those that nobody draws from, as that leaves their logits
  // alone. Tokens drawn by the step before, whose draw_places() are `drawn_before`, become what
  // EmbedRows knows them by.
  void Write(const Batch& batch, std::span<const int32_t> zeroed_blocks,
             std::span<const int32_t> drawn_before, std::byte* to) const;

 private:
  void SetBucket(const Batch& batch);
  void WriteOutputs(const Batch& batch, std::byte* to) const;
  void LayOut();

  const kernels::AttentionShape attention_;
  const int num_layers_;
  const std::vector<int> windows_;
  const int max_bucket_;
  std::vector<kernels::cuda::AttentionPlan> plans_;
  kernels::cuda::SpanList spans_;
  StepShape shape_;
  InputOffsets offsets_;
  std::vector<int32_t> draw_places_;
};

}  // namespace acuity::engine
