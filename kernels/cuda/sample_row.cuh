// One row of logits or weights as a block of SampleRowView::kThreads threads sees it, and the first
// two passes over it.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/cuda/prim/prim.h"
#include "kernels/cuda/sample.h"
#include "kernels/sampling_math.h"

namespace acuity::kernels::cuda {

struct SampleRowView {
  static constexpr int kThreads = 512;
  static constexpr int kWarps = kThreads / prim::kWarpSize;
  static constexpr int kPerLoad = 4;
  static constexpr int kStep = kThreads * kPerLoad;

  struct Four {
    float value[kPerLoad];
  };
  struct Best {
    float value;
    int id;      // the lowest among equals
    bool valid;  // no NaN or +infinity, and something finite
  };

  ACUITY_DEVICE SampleRowView(const SampleParams& params, int64_t row)
      : logits(params.logits + row * params.stride),
        weights(params.scratch + row * params.stride),
        vocab(params.vocab),
        aligned(params.stride % kPerLoad == 0 && (reinterpret_cast<uintptr_t>(params.logits) |
                                                  reinterpret_cast<uintptr_t>(params.scratch)) %
                                                         16 ==
                                                     0) {}

  // The first token of this thread; the next one is kStep further.
  ACUITY_DEVICE static int First() { return prim::ThreadIndex() * kPerLoad; }

  // Tokens id .. id + 3, `other` beyond the vocabulary.
  ACUITY_DEVICE Four Load(const float* values, int id, float other) const {
    Four four;
    if (aligned && id + kPerLoad <= vocab) {
      const prim::Bits128 bits = prim::Load128(values + id);
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) four.value[i] =
          std::bit_cast<float>(bits.word[i]);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        four.value[i] = id + i < vocab ? values[id + i] : other;
      }
    }
    return four;
  }

  ACUITY_DEVICE void Store(int id, const Four& four) const {
    if (aligned && id + kPerLoad <= vocab) {
      prim::Bits128 bits;
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) bits.word[i] =
          std::bit_cast<uint32_t>(four.value[i]);
      prim::Store128(weights + id, bits);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        if (id + i < vocab) weights[id + i] = four.value[i];
      }
    }
  }

  // `scratch` has 2 kWarps elements and is free again afterwards.
  ACUITY_DEVICE Best Scan(prim::Shared<float> scratch) const {
    const float infinity = std::bit_cast<float>(0x7f800000u);
    Best best = {-infinity, vocab, true};
    for (int id = First(); id < vocab; id += kStep) {
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
    const prim::Shared<float> values = scratch;
    const prim::Shared<int> ids = (scratch + kWarps).template As<int>();
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
    prim::BlockSync();
    best.valid = best.valid && best.value > -infinity;
    return best;
  }

  // Writes the weights; other threads see them behind a BlockSync.
  ACUITY_DEVICE void Weigh(float max, float temperature) const {
    for (int id = First(); id < vocab; id += kStep) {
      Four z = Load(logits, id, max);
      ACUITY_UNROLL for (int i = 0; i < kPerLoad; ++i) {
        z.value[i] = ExpOfNegative((z.value[i] - max) / temperature);
      }
      Store(id, z);
    }
  }

  const float* logits;
  float* weights;
  int vocab;
  bool aligned;

 private:
  ACUITY_DEVICE static Best Better(const Best& a, const Best& b) {
    const bool second = b.value > a.value || (b.value == a.value && b.id < a.id);
    return {second ? b.value : a.value, second ? b.id : a.id, a.valid && b.valid};
  }
};

}  // namespace acuity::kernels::cuda
