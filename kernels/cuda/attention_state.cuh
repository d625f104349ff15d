// One packed row of attention: who it is, what it may see, its running softmax, and how its result
// is written. Packed row r of a task is head r % group of the group, row row_begin + r / group.
#pragma once

#include "kernels/attention_stats.h"
#include "kernels/cuda/attention_variant.h"
#include "kernels/cuda/prim/prim.h"
#include "kernels/logit_policy.h"

namespace acuity::kernels::cuda {

using prim::Shared;

struct PackedRow {
  int32_t row = -1;  // of q and out; -1: this packed row does not exist
  int32_t head = 0;  // query head
  int32_t end = 0;   // of the keys that it sees; they begin at FirstVisible
};

struct SequenceRows {
  int32_t first_row = 0;       // of the sequence's new rows, in q
  int32_t first_position = 0;  // of that row
};

ACUITY_DEVICE SequenceRows RowsOf(const AttentionParams& params, const AttentionTask& task) {
  const int32_t first = params.batch.qo_indptr[task.seq];
  const int32_t rows = params.batch.qo_indptr[task.seq + 1] - first;
  return {first, params.batch.kv_len[task.seq] - rows};
}

ACUITY_DEVICE int32_t FirstVisible(const AttentionParams& params, int32_t end) {
  return params.window > 0 && end > params.window ? end - params.window : 0;
}

ACUITY_DEVICE PackedRow MakeRow(const AttentionParams& params, const AttentionTask& task,
                                const SequenceRows& seq, int packed) {
  const int group = GroupSize(params.shape);
  PackedRow row;
  const int32_t in_sequence = task.row_begin + packed / group;
  if (in_sequence >= task.row_end) return row;
  const int32_t position = seq.first_position + in_sequence;
  row.row = seq.first_row + in_sequence;
  row.head = task.kv_head * group + packed % group;
  row.end = position + 1;
  return row;
}

// Of logits q.k, of either sign.
ACUITY_DEVICE float LogitScale(const AttentionParams& params, const PackedRow& row) {
  if (row.row < 0) return 1;
  const int32_t keys = row.end - FirstVisible(params, row.end);
  return params.softmax_scale * RowScale(params.policy, row.head, keys, row.end - 1);
}

// A masked raw logit. A power of two, so that its product with any factor is exact: a row whose
// keys so far are all masked has log2 weights of 0, not of a rounding error of 1e30.
inline constexpr float kMaskedLogit = -0x1p100f;

// The running state of one row in one thread: m is the row's, l and t count this thread's columns.
// Logits are kept raw, as the product leaves them, their sign folded into the query: log2 of a
// weight is raw * factor - m.
struct RowState {
  SoftmaxState softmax;
  float greatest = kMaskedLogit;  // raw logit so far
  float factor = 1;               // > 0
  float inner = 1;                // softcap: tanh's argument is raw * inner
};

template <Variant kV>
ACUITY_DEVICE RowState StartRow(const AttentionParams& params, float scale) {
  RowState state;
  // A masked logit must stay below any other after scaling.
  constexpr float kLeastScale = 1e-20f;
  if constexpr (kV.mutation != Mutation::kNoSignFold) scale = fabsf(scale);
  if constexpr (kV.mutation != Mutation::kNoScaleClamp) scale = prim::Max(scale, kLeastScale);
  if constexpr (kV.mutation != Mutation::kUnitForgotten) scale *= UnitOf(kV.type);
  if constexpr (kV.softcap) {
    state.inner = scale * prim::Reciprocal(params.logit_softcap);
    state.factor = kLog2E * params.logit_softcap;
  } else {
    state.factor = kLog2E * scale;
  }
  state.softmax.m = kMaskedLogit * state.factor;
  return state;
}

// A row over some of its keys, summed over the warp's columns: as in a workspace slot.
struct Partial {
  SoftmaxState softmax;
  float peak = 0;
};

// The state of a quad of lanes, which hold the same row; in each of them. A row that met no visible
// key has counted masked ones with weight 1: it starts over.
ACUITY_DEVICE Partial Gather(const RowState& state) {
  Partial partial{state.softmax, prim::Exp2(prim::FusedMultiplyAdd(state.greatest, state.factor,
                                                                   -state.softmax.m))};
  for (int mask = 1; mask <= 2; mask *= 2) {
    partial.softmax.l += prim::ShuffleXor(partial.softmax.l, mask);
    partial.softmax.t += prim::ShuffleXor(partial.softmax.t, mask);
  }
  // Not if a NaN hid from the maximum.
  if (state.greatest <= kMaskedLogit && partial.softmax.l == partial.softmax.l) partial = {};
  return partial;
}

// The factor that brings something relative to 2^from to 2^to, from <= to.
ACUITY_DEVICE float Weight(float from, float to) {
  return prim::Exp2(prim::Max(from - to, -252.0f));
}

// Adds a state that was brought to the same maximum: T <- T + w (T' + D l').
ACUITY_DEVICE void Add(const Partial& part, Partial* total) {
  const float d = prim::Max(part.softmax.m - total->softmax.m, -252.0f), weight = prim::Exp2(d);
  total->softmax.l += weight * part.softmax.l;
  total->softmax.t += weight * prim::FusedMultiplyAdd(d, part.softmax.l, part.softmax.t);
  total->peak = prim::Max(total->peak, weight * part.peak);
}

ACUITY_DEVICE Partial LoadPartial(const float* slot) {
  return {{slot[0], slot[1], slot[2]}, slot[3]};
}
ACUITY_DEVICE void StorePartial(const Partial& partial, float* slot) {
  slot[0] = partial.softmax.m;
  slot[1] = partial.softmax.l;
  slot[2] = partial.softmax.t;
  slot[3] = partial.peak;
}

// What the accumulated output is multiplied by: 1 / (l + the sink's share).
ACUITY_DEVICE float OutputFactor(const AttentionParams& params, int head,
                                 const SoftmaxState& state) {
  if (state.l == 0) return 0;
  if (params.sinks == nullptr) return 1.0f / state.l;
  const float sink = kLog2E * params.sinks[head];
  const float high = prim::Max(state.m, sink);
  const float real = Weight(state.m, high);
  return real / (real * state.l + Weight(sink, high));
}

ACUITY_DEVICE void StoreStats(const AttentionParams& params, int32_t row, int head,
                              const Partial& partial) {
  RowStats stats = Finalise(partial.softmax);
  stats.max_probability *= partial.peak;
  params.stats[static_cast<int64_t>(row) * params.shape.num_heads + head] = stats;
}

ACUITY_DEVICE float* OutputRow(const AttentionParams& params, int32_t row, int head) {
  return params.out + row * params.out_stride + static_cast<int64_t>(head) * params.shape.head_dim;
}

}  // namespace acuity::kernels::cuda
