// Builds paged attention batches out of whole sequences, so that any chunk of a sequence in any
// batch can be asked for and compared with any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/reference/attention_reference.h"

namespace acuity::kernels {

// Every position of a sequence: what the projections of a model would give, representable in
// shape.kv_dtype; q beside 8-bit keys in float16.
struct SequenceData {
  int length = 0;
  std::vector<float> q;  // [length, num_heads, head_dim]
  std::vector<float> k;  // [length, num_kv_heads, head_dim]
  std::vector<float> v;  // same
};

// Normally distributed; q is multiplied by q_scale.
SequenceData MakeSequence(const AttentionShape& shape, int length, uint32_t seed,
                          float q_scale = 1);

// Rows [begin, end) of a sequence, whose keys [0, end) are in the cache.
struct Chunk {
  const SequenceData* sequence;
  int begin, end;
};

// How far from double precision a result may be, absolute; the log-sum-exp relative to its size
// where that is above 1. These are float32 arithmetic.
struct Tolerance {
  double out = 5e-5, entropy = 1e-4, max_probability = 3e-5, log_sum_exp = 1e-5;
};

// Of kernels that round q and the softmax's weights to K's type, as those on tensor cores do; to
// float16 beside 8-bit keys.
Tolerance RoundedTolerance(DType type);

// One implementation under test: plans and runs params.batch. Returns "", or why it could not.
struct AttentionBackend {
  std::string name;
  std::function<std::string(const AttentionParams&)> run;
  std::function<Tolerance(DType)> tolerance;  // of K and V's type
};

// One call. Pages are in random order, every slot that no chunk may read is NaN, unused table
// entries are out of range, q and out are misaligned and strided.
class AttentionCase {
 public:
  AttentionCase(const AttentionShape& shape, const std::vector<Chunk>& chunks);

  // Set what the call needs beyond shape, batch and pointers.
  AttentionParams& params() { return params_; }
  int64_t rows() const { return rows_; }

  struct Result {
    std::vector<float> out;       // [rows, num_heads, head_dim]
    std::vector<RowStats> stats;  // [rows, num_heads]
  };
  Result Run(const AttentionBackend& backend, bool stats = true);
  // `threads` > 1: tasks are handed out in a scrambled order.
  Result Run(const AttentionKernels& kernels, int threads = 1, bool stats = true);
  ReferenceResult Reference() const { return AttentionReference(params_); }

 private:
  void FillPages(const std::vector<Chunk>& chunks);
  void FillQueries(const std::vector<Chunk>& chunks);

  AttentionParams params_;
  int64_t rows_ = 0;
  std::vector<int32_t> qo_indptr_, kv_len_, block_tables_;
  std::vector<float> q_, out_;
  std::vector<std::byte> k_pages_, v_pages_;  // aligned to 16 bytes, as a GPU needs
};

// Every implementation that this machine can run, and a 16-lane one in plain code.
struct NamedKernels {
  std::string name;
  const AttentionKernels* kernels;
};
std::vector<NamedKernels> AllKernels();
// The one that the machine uses.
const AttentionKernels& BestKernels();

// Fails where out or stats differ from the reference by more than the tolerance.
void ExpectNear(const AttentionCase::Result& actual, const ReferenceResult& expected,
                const std::string& what, const Tolerance& tolerance = {});

// Bit for bit: actual's row `actual_row` against expected's `expected_row`.
bool SameBits(const AttentionShape& shape, const AttentionCase::Result& actual, int64_t actual_row,
              const AttentionCase::Result& expected, int64_t expected_row);

}  // namespace acuity::kernels
