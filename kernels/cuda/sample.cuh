// Sampling without a sort: one block for each row.
//
//   scan     maximum, its lowest id, NaN or infinity
//   weigh    w = e^((z - max) / temperature), kept in scratch: float32 in [0, 1], whose bits order
//   as their values do cut      top-k and top-p: the largest threshold w >= t that keeps enough, by
//   four-way search over w's 30 bits; of
//            the tokens at t itself the first `ties` by id stay
//   draw     the token at which the running mass in id order exceeds uniform * total: first the
//   warp's part of the
//            vocabulary, then 128 tokens of it, then one lane's four
//
// Every pass reads the row from L2. Compile without fused multiply-adds: see
// kernels/sampling_math.h.
#pragma once

#include <math.h>

#include <bit>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/sample.h"
#include "kernels/sampling_math.h"

namespace acuity::kernels::cuda {

struct SampleKernel {
  using Args = SampleParams;
  static constexpr int kThreads = 512;
  static constexpr int kMinBlocksPerSm = 1;  // two would leave 64 registers, and spill
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kPerLoad = 4;
  static constexpr int kTile = prim::kWarpSize * kPerLoad;  // tokens that a warp reads at once
  static constexpr int kPivots = 3;
  // Two sets of sums, used in turn: a warp may write one while a slower one still reads the other.
  static constexpr int kSharedBytes = 2 * kPivots * kWarps * sizeof(double);
  static constexpr uint32_t kOne = 0x3f800000;  // the bits of 1, which the most likely token weighs

  struct Four {
    float value[kPerLoad];
  };
  // Tokens with weight bits above `threshold`, and of those at it the first `ties` by id.
  struct Kept {
    uint32_t threshold;
    int ties;
  };
  struct Sums {
    double value[kPivots];
  };

  ACUITY_DEVICE static void Run(const Args& args) {
    const int64_t row = prim::BlockIndex().x;
    const SampleRow params = args.params[row];
    SampleKernel self(args, row);
    const Best best = self.Scan(args.logits + row * args.stride);
    if (!best.valid || params.temperature == 0) {
      if (prim::ThreadIndex() == 0) args.tokens[row] = best.valid ? best.id : -1;
      return;
    }
    self.Weigh(args.logits + row * args.stride, best.value, params.temperature);
    const Kept kept = self.Cut(params);
    self.Draw(kept, params.min_p, UniformAt(params.seed, params.position), &args.tokens[row]);
  }

 private:
  struct Best {
    float value;
    int id;
    bool valid;
  };

  ACUITY_DEVICE SampleKernel(const Args& args, int64_t row)
      : weights_(args.scratch + row * args.stride),
        vocab_(args.vocab),
        aligned_(args.stride % kPerLoad == 0 && (reinterpret_cast<uintptr_t>(args.logits) |
                                                 reinterpret_cast<uintptr_t>(args.scratch)) %
                                                        16 ==
                                                    0),
        sums_(prim::SharedMemory<double>()) {}

  // Tokens id .. id + 3, `other` beyond the vocabulary.
  ACUITY_DEVICE Four Load(const float* values, int id, float other) const {
    Four four;
    if (aligned_ && id + kPerLoad <= vocab_) {
      const prim::Bits128 bits = prim::Load128(values + id);
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) four.value[i] =
          std::bit_cast<float>(bits.word[i]);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        four.value[i] = id + i < vocab_ ? values[id + i] : other;
      }
    }
    return four;
  }

  ACUITY_DEVICE void Store(int id, const Four& four) {
    if (aligned_ && id + kPerLoad <= vocab_) {
      prim::Bits128 bits;
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) bits.word[i] =
          std::bit_cast<uint32_t>(four.value[i]);
      prim::Store128(weights_ + id, bits);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        if (id + i < vocab_) weights_[id + i] = four.value[i];
      }
    }
  }

  ACUITY_DEVICE static int First() { return prim::ThreadIndex() * kPerLoad; }
  static constexpr int kStep = kThreads * kPerLoad;

  ACUITY_DEVICE static Best Better(const Best& a, const Best& b) {
    const bool second = b.value > a.value || (b.value == a.value && b.id < a.id);
    return {second ? b.value : a.value, second ? b.id : a.id, a.valid && b.valid};
  }

  ACUITY_DEVICE Best Scan(const float* logits) const {
    const float infinity = std::bit_cast<float>(0x7f800000u);
    Best best = {-infinity, vocab_, true};
    for (int id = First(); id < vocab_; id += kStep) {
      const Four z = Load(logits, id, -infinity);
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        if (z.value[i] > best.value) best = {z.value[i], id + i, best.valid};
        best.valid = best.valid && z.value[i] < infinity;
      }
    }
    ACUITY_UNROLL for (int mask = prim::kWarpSize / 2; mask > 0; mask /= 2) {
      best = Better(best, {prim::ShuffleXor(best.value, mask), prim::ShuffleXor(best.id, mask),
                           prim::ShuffleXor(best.valid ? 1 : 0, mask) != 0});
    }
    const prim::Shared<float> values = sums_.template As<float>();
    const prim::Shared<int> ids = (values + kWarps).template As<int>();
    const int warp = prim::WarpIndex();
    if (prim::LaneIndex() == 0) {
      values[warp] = best.value;
      ids[warp] = best.valid ? best.id : -1;
    }
    prim::BlockSync();
    for (int i = 0; i < kWarps; ++i) {
      const int id = ids[i];
      best = Better(best, {values[i], id, id >= 0});
    }
    prim::BlockSync();  // the space is for sums from here on
    best.valid = best.valid && best.value > -infinity;
    return best;
  }

  ACUITY_DEVICE void Weigh(const float* logits, float max, float temperature) {
    for (int id = First(); id < vocab_; id += kStep) {
      Four z = Load(logits, id, max);
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        z.value[i] = ExpOfNegative((z.value[i] - max) / temperature);
      }
      Store(id, z);
    }
  }

  // The sums over the block, the same bits in every thread.
  ACUITY_DEVICE Sums BlockSums(Sums sums) {
    const prim::Shared<double> scratch = sums_ + turn_ * kPivots * kWarps;
    turn_ ^= 1;
    ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) sums.value[k] = WarpSum(sums.value[k]);
    const int warp = prim::WarpIndex();
    if (prim::LaneIndex() == 0) {
      ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) scratch[warp * kPivots + k] = sums.value[k];
    }
    prim::BlockSync();
    ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
      sums.value[k] = 0;
      for (int i = 0; i < kWarps; ++i) sums.value[k] += scratch[i * kPivots + k];
    }
    return sums;
  }

  // For each pivot, the number (kCount) or the mass of the tokens whose weight bits reach it.
  template <bool kCount>
  ACUITY_DEVICE Sums Reaching(const uint32_t (&pivots)[kPivots]) {
    Sums sums = {};
    for (int id = First(); id < vocab_; id += kStep) {
      const Four w = Load(weights_, id, 0);
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        const uint32_t bits = std::bit_cast<uint32_t>(w.value[i]);
        ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
          if (bits >= pivots[k]) sums.value[k] += kCount ? 1.0 : static_cast<double>(w.value[i]);
        }
      }
    }
    return BlockSums(sums);
  }

  // The largest threshold in [low, kOne] whose tokens reach `goal`; `low`, if none does.
  template <bool kCount>
  ACUITY_DEVICE uint32_t Search(uint32_t low, double goal) {
    uint32_t high = kOne + 1;  // nothing reaches it
    while (high - low > 1) {
      const uint32_t step = (high - low + kPivots) / (kPivots + 1);
      uint32_t pivots[kPivots];
      ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
        const uint32_t pivot = low + (static_cast<uint32_t>(k) + 1) * step;
        pivots[k] = pivot < high ? pivot : high;
      }
      const Sums sums = Reaching<kCount>(pivots);
      ACUITY_UNROLL for (int k = 0; k < kPivots; ++k) {
        if (pivots[k] >= high) break;
        if (sums.value[k] >= goal) {
          low = pivots[k];
        } else {
          high = pivots[k];
        }
      }
    }
    return low;
  }

  ACUITY_DEVICE Kept Cut(const SampleRow& params) {
    constexpr int kAll = 0x7fffffff;
    Kept kept = {1, kAll};  // every token of positive weight
    const bool top_k = params.top_k > 0 && params.top_k < vocab_;
    if (top_k) {
      kept.threshold = Search<true>(1, params.top_k);
      const uint32_t pivots[kPivots] = {kept.threshold + 1, kOne + 1, kOne + 1};
      kept.ties = params.top_k - static_cast<int>(Reaching<true>(pivots).value[0]);
    }
    if (params.top_p >= 1) return kept;
    const uint32_t pivots[kPivots] = {kept.threshold, kept.threshold + 1, kOne + 1};
    const Sums mass = Reaching<false>(pivots);
    const double at = static_cast<double>(std::bit_cast<float>(kept.threshold));
    const double capped = mass.value[1] + kept.ties * at;
    const double goal = static_cast<double>(params.top_p) *
                        (top_k && capped < mass.value[0] ? capped : mass.value[0]);
    const uint32_t threshold = Search<false>(kept.threshold, goal);
    const uint32_t beyond[kPivots] = {threshold + 1, kOne + 1, kOne + 1};
    const double rest = goal - Reaching<false>(beyond).value[0];
    const double each = static_cast<double>(std::bit_cast<float>(threshold));
    int ties = 1;
    if (rest > each) ties = rest / each < vocab_ ? static_cast<int>(ceil(rest / each)) : vocab_;
    if (threshold == kept.threshold && kept.ties < ties) ties = kept.ties;
    return {threshold, ties};
  }

  // Which of four tokens are kept, given how many ties came before; `ties` counts on.
  ACUITY_DEVICE static Four Masked(const Four& w, const Kept& kept, float min_p, int& ties) {
    Four masked;
    ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(w.value[i]);
      bool keep = bits > kept.threshold;
      if (bits == kept.threshold) keep = ties++ < kept.ties;
      masked.value[i] = keep && w.value[i] >= min_p ? w.value[i] : 0.0f;
    }
    return masked;
  }

  ACUITY_DEVICE static int CountTies(const Four& w, const Kept& kept) {
    int ties = 0;
    ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
      ties += std::bit_cast<uint32_t>(w.value[i]) == kept.threshold;
    }
    return ties;
  }

  // The sum over the lanes below this one.
  template <typename T>
  ACUITY_DEVICE static T LanesBelow(T value) {
    T sum = value;
    ACUITY_UNROLL for (int step = 1; step < prim::kWarpSize; step *= 2) {
      const T other = Exchange(sum, prim::LaneIndex() - step);
      if (prim::LaneIndex() >= step) sum += other;
    }
    const T below = Exchange(sum, prim::LaneIndex() - 1);
    return prim::LaneIndex() > 0 ? below : T{0};
  }

  // Each warp takes a part of the vocabulary, a whole number of tiles; the part that holds the
  // target is walked.
  ACUITY_DEVICE void Draw(const Kept& kept, float min_p, double uniform, int32_t* token) {
    const int tiles = (vocab_ + kTile - 1) / kTile;
    const int part = (tiles + kWarps - 1) / kWarps * kTile;
    const int warp = prim::WarpIndex();
    const int begin = warp * part;
    const int end = begin + part < vocab_ ? begin + part : vocab_;
    prim::BlockSync();  // the weights of other threads, and the sums of the last search

    int ties = 0;
    for (int id = begin + prim::LaneIndex() * kPerLoad; id < end; id += kTile) {
      ties += CountTies(Load(weights_, id, 0), kept);
    }
    ties = WarpSum(ties);
    const prim::Shared<int> tie_counts = (sums_ + kWarps).template As<int>();
    if (prim::LaneIndex() == 0) tie_counts[warp] = ties;
    prim::BlockSync();
    int ties_before = 0;
    for (int i = 0; i < warp; ++i) ties_before += tie_counts[i];

    double mass = 0;
    int seen = ties_before;
    for (int base = begin; base < end; base += kTile) mass += TileOf(base, kept, min_p, seen).mass;
    if (prim::LaneIndex() == 0) sums_[warp] = mass;
    prim::BlockSync();
    double total = 0;
    for (int i = 0; i < kWarps; ++i) total += sums_[i];
    const double target = uniform * total;
    double before = 0, running = 0;
    int chosen = 0;  // the last part that holds anything, unless an earlier one holds the target
    for (int i = 0; i < kWarps && running <= target; ++i) {
      const double here = sums_[i];
      if (here > 0) chosen = i, before = running;
      running += here;
    }
    if (warp == chosen) Walk(begin, end, kept, min_p, ties_before, target - before, token);
  }

  struct Tile {
    Four masked;
    double lane, below;  // this lane's mass, and that of the lanes below
    double mass;         // of the tile
  };
  // Tokens base .. base + kTile. `ties` is the number of ties before the tile, and counts on.
  ACUITY_DEVICE Tile TileOf(int base, const Kept& kept, float min_p, int& ties) const {
    const Four w = Load(weights_, base + prim::LaneIndex() * kPerLoad, 0);
    const int mine = CountTies(w, kept);
    int tie = ties + LanesBelow(mine);
    ties += WarpSum(mine);
    Tile tile;
    tile.masked = Masked(w, kept, min_p, tie);
    tile.lane = 0;
    ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
      tile.lane += static_cast<double>(tile.masked.value[i]);
    }
    tile.below = LanesBelow(tile.lane);
    tile.mass = Exchange(tile.below + tile.lane, prim::kWarpSize - 1);
    return tile;
  }

  // The first token at which the mass from `begin` on exceeds the target; the last kept one, if
  // rounding leaves none.
  ACUITY_DEVICE void Walk(int begin, int end, const Kept& kept, float min_p, int ties,
                          double target, int32_t* token) const {
    double running = 0;
    int found = -1, last = -1;  // of this lane
    for (int base = begin; base < end && prim::Ballot(found >= 0) == 0; base += kTile) {
      const Tile tile = TileOf(base, kept, min_p, ties);
      double mass = running + tile.below;
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        if (tile.masked.value[i] == 0) continue;
        mass += static_cast<double>(tile.masked.value[i]);
        last = base + prim::LaneIndex() * kPerLoad + i;
        if (found < 0 && mass > target) found = last;
      }
      running += tile.mass;
    }
    ACUITY_UNROLL for (int mask = prim::kWarpSize / 2; mask > 0; mask /= 2) {
      const int other = prim::ShuffleXor(found, mask), later = prim::ShuffleXor(last, mask);
      if (other >= 0 && (found < 0 || other < found)) found = other;
      if (later > last) last = later;
    }
    if (prim::LaneIndex() == 0) *token = found >= 0 ? found : last;
  }

  float* weights_;
  int vocab_;
  bool aligned_;
  prim::Shared<double> sums_;
  int turn_ = 0;
};

}  // namespace acuity::kernels::cuda
