// Draws from what a cut kept: the token at which the running mass in id order exceeds uniform *
// total.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/sample_cut.cuh"

namespace acuity::kernels::cuda {

class SampleDraw {
 public:
  static constexpr int kWarps = SampleRowView::kWarps;
  static constexpr int kPerLoad = SampleRowView::kPerLoad;
  static constexpr int kTile = prim::kWarpSize * kPerLoad;  // tokens that a warp reads at once
  static constexpr int kSharedDoubles = 2 * kWarps;

  // A BlockSync lies between the last use of `sums` and Draw().
  ACUITY_DEVICE SampleDraw(const SampleRowView& row, prim::Shared<double> sums)
      : row_(row), sums_(sums) {}

  // Each warp takes a part of the vocabulary, a whole number of tiles; the part that holds the
  // target is walked.
  ACUITY_DEVICE void Draw(const SampleKept& kept, float min_p, double uniform,
                          int32_t* token) const {
    const int tiles = (row_.vocab + kTile - 1) / kTile;
    const int part = (tiles + kWarps - 1) / kWarps * kTile;
    const int warp = prim::WarpIndex();
    const int begin = warp * part;
    const int end = begin + part < row_.vocab ? begin + part : row_.vocab;
    int ties = 0;
    for (int id = begin + prim::LaneIndex() * kPerLoad; id < end; id += kTile) {
      ties += CountTies(row_.Load(row_.weights, id, 0), kept);
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

 private:
  using Four = SampleRowView::Four;
  struct Tile {
    Four masked;
    double lane, below;  // this lane's mass, and that of the lanes below
    double mass;         // of the tile
  };

  // Which of four tokens are kept, given how many ties came before; `ties` counts on.
  ACUITY_DEVICE static Four Masked(const Four& w, const SampleKept& kept, float min_p, int& ties) {
    Four masked;
    ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(w.value[i]);
      bool keep = bits > kept.threshold;
      if (bits == kept.threshold) keep = ties++ < kept.ties;
      masked.value[i] = keep && w.value[i] >= min_p ? w.value[i] : 0.0f;
    }
    return masked;
  }

  ACUITY_DEVICE static int CountTies(const Four& w, const SampleKept& kept) {
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

  // Tokens base .. base + kTile. `ties` is the number of ties before the tile, and counts on.
  ACUITY_DEVICE Tile TileOf(int base, const SampleKept& kept, float min_p, int& ties) const {
    const Four w = row_.Load(row_.weights, base + prim::LaneIndex() * kPerLoad, 0);
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
  ACUITY_DEVICE void Walk(int begin, int end, const SampleKept& kept, float min_p, int ties,
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

  SampleRowView row_;
  prim::Shared<double> sums_;
};

}  // namespace acuity::kernels::cuda
