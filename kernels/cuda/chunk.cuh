// Eight elements of a row in registers, as float32: what one thread loads, works on and stores at a
// time.
#pragma once

#include <bit>

#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::cuda {

inline constexpr int kChunk = 8;  // of 16-bit elements: 16 bytes

struct Chunk {
  float value[kChunk];
};

// Elements [at, at + count) of `base`, zeros behind them. `aligned`: the address is a multiple of
// 16 and count is kChunk; the same in all threads.
template <DType kType>
ACUITY_DEVICE Chunk LoadChunk(const void* base, int64_t at, int count, bool aligned) {
  Chunk chunk;
  if constexpr (kType == DType::kFloat32) {
    const float* p = static_cast<const float*>(base) + at;
    if (aligned) {
      const prim::Bits128 low = prim::Load128(p), high = prim::Load128(p + 4);
      ACUITY_UNROLL for (int i = 0; i < 4; ++i) {
        chunk.value[i] = std::bit_cast<float>(low.word[i]);
        chunk.value[4 + i] = std::bit_cast<float>(high.word[i]);
      }
    } else {
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) chunk.value[i] = i < count ? p[i] : 0.0f;
    }
  } else {
    const uint16_t* p = static_cast<const uint16_t*>(base) + at;
    prim::Bits128 bits = {};
    if (aligned) {
      bits = prim::Load128(p);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        if (i < count) bits.word[i / 2] |= static_cast<uint32_t>(p[i]) << (i % 2 * 16);
      }
    }
    ACUITY_UNROLL for (int i = 0; i < 4; ++i) {
      prim::Unpack<kType>(bits.word[i], chunk.value[2 * i], chunk.value[2 * i + 1]);
    }
  }
  return chunk;
}

// Writes the first `count` elements to [at, at + count).
template <DType kType>
ACUITY_DEVICE void StoreChunk(void* base, int64_t at, int count, bool aligned, const Chunk& chunk) {
  if constexpr (kType == DType::kFloat32) {
    float* p = static_cast<float*>(base) + at;
    if (aligned) {
      prim::Bits128 low, high;
      ACUITY_UNROLL for (int i = 0; i < 4; ++i) {
        low.word[i] = std::bit_cast<uint32_t>(chunk.value[i]);
        high.word[i] = std::bit_cast<uint32_t>(chunk.value[4 + i]);
      }
      prim::Store128(p, low);
      prim::Store128(p + 4, high);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        if (i < count) p[i] = chunk.value[i];
      }
    }
  } else {
    uint16_t* p = static_cast<uint16_t*>(base) + at;
    prim::Bits128 bits;
    ACUITY_UNROLL for (int i = 0; i < 4; ++i) {
      bits.word[i] = prim::Pack<kType>(chunk.value[2 * i], chunk.value[2 * i + 1]);
    }
    if (aligned) {
      prim::Store128(p, bits);
    } else {
      ACUITY_UNROLL for (int i = 0; i < kChunk; ++i) {
        if (i < count) p[i] = static_cast<uint16_t>(bits.word[i / 2] >> (i % 2 * 16));
      }
    }
  }
}

// min(kChunk, size - at)
ACUITY_DEVICE int ChunkCount(int64_t size, int64_t at) {
  return size - at < kChunk ? static_cast<int>(size - at) : kChunk;
}

}  // namespace acuity::kernels::cuda
