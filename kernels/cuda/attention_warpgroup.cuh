// Ragged causal prefill for sm_90a: a block takes up to 128 packed rows of one KV head, 64 for each
// of two warpgroups that multiply, against tiles of keys that a third warpgroup copies. Tasks,
// rows, softmax, statistics and results are those of attention_prefill.cuh.
#pragma once

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_warpgroup_tiles.cuh"
#include "kernels/cuda/prim/warpgroup.h"

namespace acuity::kernels::cuda {

template <Variant kV>
struct WarpgroupPrefillKernel {
  using Args = AttentionArgs;
  using Tiles = WarpgroupTiles<kV>;
  static constexpr int kHeadDim = kV.head_dim;
  static constexpr int kThreads = (kConsumers + 1) * prim::kWarpgroupSize;
  static constexpr int kMinBlocksPerSm = 1;
  static constexpr int kKeys = kWarpgroupTileKeys;
  // Of a thread: what is 168 for all at the launch, shared out anew.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static_assert(prim::kWarpgroupSize * (kProducerRegisters + kConsumers * kConsumerRegisters) <=
                65536);
  static_assert(kHeadDim == 64 || kHeadDim == 128);
  static_assert(!kV.softcap);

  ACUITY_DEVICE static void Run(const Args& args) {
    const int index = static_cast<int>(prim::BlockIndex().x);
    if (index >= *args.count) return;
    if (prim::ThreadIndex() == 0) Tiles::InitBarriers();
    prim::BlockSync();
    if (prim::WarpIndex() / prim::kWarpgroupWarps == kConsumers) {
      prim::GiveBackRegisters<kProducerRegisters>();
      Tiles::Produce(args, args.tasks[index]);
    } else {
      prim::TakeRegisters<kConsumerRegisters>();
      Consume(args, args.tasks[index]);
    }
  }

 private:
  ACUITY_DEVICE static void Consume(const Args& args, const AttentionTask& task) {
    const SequenceRows seq = RowsOf(args.params, task);
    const int packed = FirstRow();
    const PackedRow rows[2] = {MakeRow(args.params, task, seq, packed),
                               MakeRow(args.params, task, seq, packed + 8)};
    const float scales[2] = {LogitScale(args.params, rows[0]), LogitScale(args.params, rows[1])};
    RowState states[2] = {StartRow<kV>(args.params, scales[0]),
                          StartRow<kV>(args.params, scales[1])};
    StoreQueries(QuerySource<kV>(args.params, rows, scales));
    FragmentC out[kHeadDim / 8] = {};
    FragmentA weights[kKeys / 16];

    const KeyTiles tiles = Tiles::TilesOf(task);
    // As in attention_prefill.cuh: tiles within are seen whole by every row of the block.
    const int32_t full_begin = FirstVisible(args.params, seq.first_position + task.row_end);
    const int32_t full_end = seq.first_position + task.row_begin + 1;
    Begin(args.params, tiles.first_key, rows, states, weights);
    ACUITY_NO_UNROLL
    for (int i = 1; i < tiles.count; ++i) {
      const int32_t first_key = tiles.first_key + i * kKeys;
      if (first_key >= full_begin && first_key + kKeys <= full_end) {
        Step<false>(args.params, first_key, i, rows, states, weights, out);
      } else {
        Step<true>(args.params, first_key, i, rows, states, weights, out);
      }
    }
    WaitFull(kValueTile, tiles.count - 1);
    prim::FenceAsyncProxy();
    prim::FenceProducts(weights, out);
    StartValues(tiles.count - 1, weights, out);
    prim::WaitProducts<0>(weights, out);
    ACUITY_UNROLL
    for (int h = 0; h < 2; ++h) StoreRow<kV>(args, FirstRow() + 8 * h, h, states[h], out);
  }

  // The lane's first packed row; the other one is eight further on.
  ACUITY_DEVICE static int FirstRow() {
    return prim::WarpIndex() * kWarpRows + prim::LaneIndex() / 4;
  }
  ACUITY_DEVICE static int Consumer() { return prim::WarpIndex() / prim::kWarpgroupWarps; }

  // A warpgroup's queries, as products read them: in one piece, which takes all of its warps.
  ACUITY_DEVICE static void StoreQueries(const QuerySource<kV>& source) {
    const int row = FirstRow() % kConsumerRows, t = prim::LaneIndex() % 4;
    const Shared<uint32_t> words = Tiles::QueryMemory(Consumer()).template As<uint32_t>();
    ACUITY_UNROLL
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const FragmentA a = source.Fragment(step);
      ACUITY_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int at = prim::PanelOffset(kConsumerRows, row + i % 2 * 8, 2 * step + i / 2);
        words[at / 2 + t] = a.word[i];
      }
    }
    if constexpr (kV.mutation != Mutation::kNoProxyFence) prim::FenceAsyncProxy();
    if constexpr (kV.mutation != Mutation::kNoQueryBarrier) prim::WarpgroupSync();
  }

  ACUITY_DEVICE static void WaitFull(int operand, int i) {
    if constexpr (kV.mutation == Mutation::kNoFullWait) return;
    prim::WaitBarrier(Tiles::Full(operand, i),
                      Tiles::Parity(i) ^ (kV.mutation == Mutation::kWrongParity));
  }

  // Starts logits = Q K^T over tile i.
  ACUITY_DEVICE static void StartLogits(int i, FragmentC (&logits)[kKeys / 8]) {
    const uint64_t wrong =
        kV.mutation == Mutation::kWrongSwizzle ? uint64_t{3} << 62 : uint64_t{0};  // 64 bytes
    const uint64_t q = prim::MatrixAt(Tiles::QueryMemory(Consumer()), 0);
    const uint64_t k = prim::MatrixAt(Tiles::Tile(kKeyTile, i), 0) ^ wrong;
    ACUITY_UNROLL
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const int panel = step / 4, within = step % 4 * 32;
      prim::Multiply<kV.type, kKeys>(logits, prim::Advance(q, panel * kConsumerRows * 128 + within),
                                     prim::Advance(k, panel * kKeys * 128 + within), step > 0);
    }
    prim::CommitProducts();
  }

  // Starts out += P V over tile i.
  ACUITY_DEVICE static void StartValues(int i, const FragmentA (&weights)[kKeys / 16],
                                        FragmentC (&out)[kHeadDim / 8]) {
    const int panel_bytes = kKeys * 128 / (kV.mutation == Mutation::kWrongPanel ? 2 : 1);
    const uint64_t v = prim::MatrixAt(Tiles::Tile(kValueTile, i), panel_bytes);
    ACUITY_UNROLL
    for (int step = 0; step < kKeys / 16; ++step) {
      prim::MultiplyAdd<kV.type, kHeadDim>(out, weights[step], prim::Advance(v, step * 16 * 128));
    }
    prim::CommitProducts();
  }

  ACUITY_DEVICE static void RoundWeights(const FragmentC (&logits)[kKeys / 8],
                                         FragmentA (&weights)[kKeys / 16]) {
    ACUITY_UNROLL
    for (int step = 0; step < kKeys / 16; ++step) {
      weights[step] = WeightsOf<kV>(logits[2 * step], logits[2 * step + 1]);
    }
  }

  // Tile 0, up to its weights: its product with V is the next step's.
  ACUITY_DEVICE static void Begin(const AttentionParams& params, int32_t first_key,
                                  const PackedRow (&rows)[2], RowState (&states)[2],
                                  FragmentA (&weights)[kKeys / 16]) {
    FragmentC logits[kKeys / 8];
    WaitFull(kKeyTile, 0);
    prim::FenceAsyncProxy();
    prim::FenceProducts();
    StartLogits(0, logits);
    prim::WaitProducts<0>(logits);
    prim::Arrive(Tiles::Free(kKeyTile, 0));
    ACUITY_UNROLL
    for (int h = 0; h < 2; ++h) {
      MoveTo<kV>(TakeMaximum<kV, kKeys, true>(params, rows[h], first_key, h, states[h], logits),
                 states[h]);
      TakeWeights<kV, kKeys>(h, states[h], logits);
    }
    RoundWeights(logits, weights);
  }

  // The logits of tile i and, on the tensor cores behind them while the softmax of tile i runs, the
  // product of tile i - 1's weights with V.
  template <bool kMasked>
  ACUITY_DEVICE static void Step(const AttentionParams& params, int32_t first_key, int i,
                                 const PackedRow (&rows)[2], RowState (&states)[2],
                                 FragmentA (&weights)[kKeys / 16], FragmentC (&out)[kHeadDim / 8]) {
    FragmentC logits[kKeys / 8];
    WaitFull(kKeyTile, i);
    WaitFull(kValueTile, i - 1);  // copied before
    if constexpr (kV.mutation != Mutation::kNoProxyFence) prim::FenceAsyncProxy();
    if constexpr (kV.mutation != Mutation::kNoProductFence) prim::FenceProducts(weights, out);
    StartLogits(i, logits);
    StartValues(i - 1, weights, out);
    if constexpr (kV.mutation != Mutation::kNoProductWait) prim::WaitProducts<1>(logits);
    prim::Arrive(Tiles::Free(kKeyTile, i));
    float m[2], shrink[2];
    ACUITY_UNROLL
    for (int h = 0; h < 2; ++h) {
      m[h] = TakeMaximum<kV, kKeys, kMasked>(params, rows[h], first_key, h, states[h], logits);
    }
    const bool moves = AnyMoves(m, states);
    ACUITY_UNROLL
    for (int h = 0; h < 2; ++h) {
      shrink[h] = MoveTo<kV>(m[h], states[h]);
      TakeWeights<kV, kKeys>(h, states[h], logits);
    }
    constexpr bool kEarly = kV.mutation == Mutation::kEarlyRelease;
    if constexpr (kEarly) prim::Arrive(Tiles::Free(kValueTile, i - 1));
    prim::WaitProducts<0>(weights, out);
    if constexpr (!kEarly) prim::Arrive(Tiles::Free(kValueTile, i - 1));
    if (moves) {
      ACUITY_UNROLL
      for (int h = 0; h < 2; ++h) ScaleRow(h, shrink[h], out);
    }
    RoundWeights(logits, weights);
  }
};

}  // namespace acuity::kernels::cuda
