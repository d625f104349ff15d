// What sixteen packed rows of a warp go through in registers, whichever instruction multiplies:
// queries out of q, mask, online softmax, weights for the product with V, results to memory. In
// each of them a lane has packed rows g and g + 8 (h = 0 and 1), in the columns of FragmentC.
#pragma once

#include "kernels/cuda/attention_state.cuh"

namespace acuity::kernels::cuda {

using prim::FragmentA;
using prim::FragmentB;
using prim::FragmentC;

// Which of sixteen dimensions a lane has, two in each of two halves: of a query, columns of A's
// lower and upper eight; of the output, those of two neighbouring fragments. Sums over dimensions
// may be taken in any order, and the output's columns are whatever V's were: 8-bit tiles give a
// lane four bytes that lie together, and the even and the odd of them are its halves
// (attention_tile.cuh).
//
//   16 bits   First() = 2t   dims 2t, 2t+1 | 2t+8, 2t+9
//    8 bits   First() = 4t   dims 4t, 4t+2 | 4t+1, 4t+3
template <DType kTile>
struct LaneDims {
  ACUITY_DEVICE static int First() {
    return prim::LaneIndex() % 4 * (kTile == DType::kFloat8 ? 4 : 2);
  }
  static constexpr int Offset(int half, int element) {
    return kTile == DType::kFloat8 ? half + 2 * element : 8 * half + element;
  }
};

// The sixteen queries of a warp in q.
template <Variant kV>
class QuerySource {
 public:
  ACUITY_DEVICE QuerySource(const AttentionParams& params, const PackedRow (&rows)[2],
                            const float (&scales)[2]) {
    for (int h = 0; h < 2; ++h) {
      exists_[h] = rows[h].row >= 0;
      const int64_t at = static_cast<int64_t>(exists_[h] ? rows[h].row : 0) * params.q_stride +
                         static_cast<int64_t>(rows[h].head) * kV.head_dim;
      from_[h] = params.q + at + Dims::First();
      negative_[h] = kV.mutation != Mutation::kNoSignFold && scales[h] < 0;
    }
  }

  // Dimensions [16 step, 16 step + 16), rounded, the sign of the scale folded in; zeroes for rows
  // that do not exist.
  ACUITY_DEVICE FragmentA Fragment(int step) const {
    FragmentA a;
    ACUITY_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int h = i % 2;
      const float low = Element(h, step * 16 + Dims::Offset(i / 2, 0));
      const float high = Element(h, step * 16 + Dims::Offset(i / 2, 1));
      a.word[i] = prim::Pack<OperandOf(kV.type)>(low, high);
    }
    return a;
  }

 private:
  using Dims = LaneDims<kV.mutation == Mutation::kWrongOrder ? DType::kFloat16 : TileType(kV)>;

  ACUITY_DEVICE float Element(int h, int dim) const {
    const float x = exists_[h] ? from_[h][dim] : 0;
    return negative_[h] ? -x : x;
  }

  const float* from_[2];
  bool exists_[2], negative_[2];
};

// tanh within 2e-7, without a branch: 1 - 2 / (1 + e^2x).
ACUITY_DEVICE float Tanh(float x) {
  return 1 - 2 * prim::Reciprocal(1 + prim::Exp2(2 * kLog2E * x));
}

// Masks the logits of one row (h: g or g + 8) and moves its state to their new maximum; returns the
// factor by which what was accumulated shrinks. `first_key` is the tile's; kMasked: some key is not
// visible to some row.
template <Variant kV, int kKeys, bool kMasked>
ACUITY_DEVICE float MoveMaximum(const AttentionParams& params, const PackedRow& row,
                                int32_t first_key, int h, RowState& state,
                                FragmentC (&logits)[kKeys / 8]) {
  const int32_t column = first_key + prim::LaneIndex() % 4 * 2;
  const int32_t begin = kMasked ? FirstVisible(params, row.end) : 0;
  float greatest = state.greatest;
  ACUITY_UNROLL
  for (int j = 0; j < kKeys / 8; ++j) {
    ACUITY_UNROLL
    for (int e = 0; e < 2; ++e) {
      float& logit = logits[j].value[2 * h + e];
      if constexpr (kV.softcap) logit = Tanh(logit * state.inner);
      if constexpr (kMasked) {
        const int32_t key = column + 8 * j + e;
        if (key < begin || key >= row.end) logit = kMaskedLogit;
      }
      greatest = prim::Max(greatest, logit);
    }
  }
  greatest = prim::Max(greatest, prim::ShuffleXor(greatest, 1));
  greatest = prim::Max(greatest, prim::ShuffleXor(greatest, 2));
  state.greatest = greatest;
  const float t = state.softmax.t;
  const float shrink = Rescale(state.softmax, greatest * state.factor);
  if constexpr (kV.mutation == Mutation::kNoMovedMaximum) state.softmax.t = shrink * t;
  return shrink;
}

template <int kFragments>
ACUITY_DEVICE void ScaleRow(int h, float factor, FragmentC (&out)[kFragments]) {
  ACUITY_UNROLL
  for (int j = 0; j < kFragments; ++j) {
    out[j].value[2 * h] *= factor;
    out[j].value[2 * h + 1] *= factor;
  }
}

// Logits of one row to weights 2^(logit - m), counted in its state.
template <Variant kV, int kKeys>
ACUITY_DEVICE void TakeWeights(int h, RowState& state, FragmentC (&logits)[kKeys / 8]) {
  ACUITY_UNROLL
  for (int j = 0; j < kKeys / 8; ++j) {
    ACUITY_UNROLL
    for (int e = 0; e < 2; ++e) {
      float& logit = logits[j].value[2 * h + e];
      const float u = prim::FusedMultiplyAdd(logit, state.factor, -state.softmax.m);
      const float p = prim::Exp2(u);
      state.softmax.l += p;
      if constexpr (kV.stats) state.softmax.t = prim::FusedMultiplyAdd(p, u, state.softmax.t);
      logit = p;
    }
  }
}

// P over 16 keys, rounded: the registers of C are those of A.
template <Variant kV>
ACUITY_DEVICE FragmentA WeightsOf(const FragmentC& low, const FragmentC& high) {
  constexpr DType kType = OperandOf(kV.type);
  return {{prim::Pack<kType>(low.value[0], low.value[1]),
           prim::Pack<kType>(low.value[2], low.value[3]),
           prim::Pack<kType>(high.value[0], high.value[1]),
           prim::Pack<kType>(high.value[2], high.value[3])}};
}

// Writes packed row `packed` of the block's task (h: the lane's g or g + 8), to its slot or to out.
// Reads the task again: the registers are worth more before.
template <Variant kV>
ACUITY_DEVICE void StoreRow(const AttentionArgs& args, int packed, int h, const RowState& state,
                            const FragmentC (&out)[kV.head_dim / 8]) {
  using Dims = LaneDims<TileType(kV)>;
  const Partial partial = Gather(state);
  const AttentionTask task = args.tasks[prim::BlockIndex().x];
  const PackedRow row = MakeRow(args.params, task, RowsOf(args.params, task), packed);
  if (row.row < 0) return;
  const bool split = task.split_slot >= 0;
  float* slot = args.workspace + (split ? task.split_slot + packed : 0) * SlotFloats(kV.head_dim);
  float* to = split ? slot + kSlotStateFloats : OutputRow(args.params, row.row, row.head);
  float factor = split ? 1 : OutputFactor(args.params, row.head, partial.softmax);
  factor *= UnitOf(kV.type);
  if (partial.softmax.l == 0) factor = 0;  // only masked keys were accumulated
  if (prim::LaneIndex() % 4 == 0) {
    if (split) {
      StorePartial(partial, slot);
    } else if (kV.stats) {
      StoreStats(args.params, row.row, row.head, partial);
    }
  }
  ACUITY_UNROLL
  for (int j = 0; j < kV.head_dim / 8; ++j) {
    ACUITY_UNROLL
    for (int e = 0; e < 2; ++e) {
      to[j / 2 * 16 + Dims::Offset(j % 2, e) + Dims::First()] = out[j].value[2 * h + e] * factor;
    }
  }
}

}  // namespace acuity::kernels::cuda
