// The mass that a piece of one span's keys has for one head: K is read once more, 16 bytes to a
// thread, a key's bytes to neighbouring lanes. The heads of a GQA group read the same keys in
// different blocks.
#pragma once

#include <math.h>

#include "kernels/cuda/attention_span.h"
#include "kernels/cuda/attention_state.cuh"
#include "kernels/cuda/float8.cuh"
#include "kernels/cuda/reduce.cuh"

namespace acuity::kernels::cuda {

// Blocks (x, y, z): span x, head y, the z-th kBlockKeys keys of the span. kType: of the keys.
template <DType kType>
struct SpanMassKernel {
  struct Args {
    SpanMassParams p;
    int page_shift;  // log2 of the page size
  };
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocksPerSm = 8;
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kSharedBytes = kWarps * sizeof(float);
  static constexpr int kBlockKeys = 512;
  static constexpr int kLoads = 4;  // in flight in each thread
  static constexpr int kElements = 16 / static_cast<int>(SizeOf(kType));  // of each

  ACUITY_DEVICE static void Run(const Args& args) {
    const AttentionParams& params = args.p.attention;
    const WatchedSpan span = args.p.spans[prim::BlockIndex().x];
    if (span.seq < 0) return;
    const int32_t begin = span.keys.begin + static_cast<int32_t>(prim::BlockIndex().z) * kBlockKeys;
    const PackedRow row = RowOf(params, span, static_cast<int32_t>(prim::BlockIndex().y));
    const int32_t visible = FirstVisible(params, row.end);
    const int32_t first = begin > visible ? begin : visible;
    const int32_t last = Least(Least(begin + kBlockKeys, span.keys.end), row.end);
    if (first >= last) return;
    const float sum = SumOver(args, span.seq, row, first, last);
    const float mass = BlockSum<kWarps>(sum, prim::SharedMemory<float>());
    if (prim::ThreadIndex() == 0) {
      prim::AtomicAdd(args.p.mass + span.at + int64_t{row.head} * span.stride, Units(mass));
    }
  }

 private:
  ACUITY_DEVICE static int32_t Least(int32_t a, int32_t b) { return a < b ? a : b; }

  ACUITY_DEVICE static PackedRow RowOf(const AttentionParams& params, const WatchedSpan& span,
                                       int32_t head) {
    AttentionTask task;
    task.seq = span.seq;
    const SequenceRows seq = RowsOf(params, task);
    return {seq.first_row + span.row, head, seq.first_position + span.row + 1};
  }

  // A mass that is none makes the sum of up to 2^16 pieces larger than any mass, and no wrap of it.
  ACUITY_DEVICE static uint64_t Units(float mass) {
    return mass <= 2 ? static_cast<uint64_t>(mass * static_cast<float>(1 / kMassUnit))
                     : uint64_t{1} << 47;
  }

  // This thread's part of sum exp(z - lse) over keys [first, last).
  ACUITY_DEVICE static float SumOver(const Args& args, int32_t seq, const PackedRow& row,
                                     int32_t first, int32_t last) {
    const AttentionParams& params = args.p.attention;
    const int lanes = params.shape.head_dim / kElements, keys = kThreads / lanes;
    const int lane = prim::ThreadIndex() % lanes;
    float q[kElements];
    LoadQuery(params, row, lane * kElements, q);
    const float scale = LogitScale(params, row) * UnitOf(kType);
    const float lse =
        params.stats[int64_t{row.row} * params.shape.num_heads + row.head].log_sum_exp;
    float sum = 0;
    ACUITY_NO_UNROLL
    for (int32_t at = first + prim::ThreadIndex() / lanes; at - prim::ThreadIndex() / lanes < last;
         at += keys * kLoads) {
      prim::Bits128 k[kLoads] = {};
      ACUITY_UNROLL for (int i = 0; i < kLoads; ++i) {
        if (at + i * keys < last) k[i] = Key(args, seq, row.head, at + i * keys, lane);
      }
      ACUITY_UNROLL for (int i = 0; i < kLoads; ++i) {
        const float z = Logit(params, GroupSum(Dot(q, k[i]), lanes) * scale);
        if (lane == 0 && at + i * keys < last) sum += prim::Exp2((z - lse) * kLog2E);
      }
    }
    return sum;
  }

  // Rounded, as attention has it: the masses of all keys add up to 1.
  ACUITY_DEVICE static void LoadQuery(const AttentionParams& params, const PackedRow& row,
                                      int first, float (&to)[kElements]) {
    constexpr DType kOperand = OperandOf(kType);
    const float* q =
        params.q + row.row * params.q_stride + int64_t{row.head} * params.shape.head_dim + first;
    ACUITY_UNROLL for (int i = 0; i < kElements; i += 2) {
      prim::Unpack<kOperand>(prim::Pack<kOperand>(q[i], q[i + 1]), to[i], to[i + 1]);
    }
  }

  // Of keys as products have them: 8-bit ones 2^-8 their value.
  ACUITY_DEVICE static float Dot(const float (&q)[kElements], const prim::Bits128& k) {
    float dot = 0;
    ACUITY_UNROLL for (int w = 0; w < 4; ++w) {
      if constexpr (kType == DType::kFloat8) {
        const WidePairs wide = WidenFloat8(k.word[w]);
        float x[4];
        prim::Unpack<DType::kFloat16>(wide.even, x[0], x[2]);
        prim::Unpack<DType::kFloat16>(wide.odd, x[1], x[3]);
        ACUITY_UNROLL for (int i = 0; i < 4; ++i) dot += q[4 * w + i] * x[i];
      } else {
        float low, high;
        prim::Unpack<kType>(k.word[w], low, high);
        dot += q[2 * w] * low;
        dot += q[2 * w + 1] * high;
      }
    }
    return dot;
  }

  // Its lane-th 16 bytes.
  ACUITY_DEVICE static prim::Bits128 Key(const Args& args, int32_t seq, int32_t head, int32_t key,
                                         int lane) {
    const AttentionParams& params = args.p.attention;
    const AttentionShape& shape = params.shape;
    const int64_t page = params.batch.block_tables[int64_t{seq} * params.batch.block_table_stride +
                                                   (key >> args.page_shift)];
    const int32_t kv_head = head / GroupSize(shape);
    const int64_t slot = ((page * shape.num_kv_heads + kv_head) << args.page_shift) +
                         (key & ((1 << args.page_shift) - 1));
    return prim::Load128(static_cast<const char*>(params.k_pages) +
                         (slot * shape.head_dim + lane * kElements) *
                             static_cast<int>(SizeOf(kType)));
  }

  ACUITY_DEVICE static float Logit(const AttentionParams& params, float z) {
    const float cap = params.logit_softcap;
    return cap > 0 ? cap * tanhf(z / cap) : z;
  }
};

}  // namespace acuity::kernels::cuda
