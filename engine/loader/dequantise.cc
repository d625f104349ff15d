#include "engine/loader/dequantise.h"

#include <bit>
#include <cstring>

#include "kernels/dtype.h"

// Layouts, all little-endian and packed. d, m, dmin are float16 scales; y is the output.
// A 32-element block keeps elements 0..15 in the low and 16..31 in the high nibbles of its 16
// bytes. A K block ("super-block") has 256 elements and sub-blocks of 16 or 32 with small integer
// scales.

namespace acuity::engine {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int kBlock = 32;
constexpr int kSuperBlock = 256;

uint16_t Load16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

uint32_t Load32(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// IEEE binary16 -> binary32, exact. The exponent bias grows by 112; Inf and NaN get 112 once more.
inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t rebias = magnitude >= 0x7c00u ? 224u << 23 : 112u << 23;
  const uint32_t normal = (magnitude << 13) + rebias;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t bits = magnitude < 0x0400u ? std::bit_cast<uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(bits | sign);
}

float LoadHalf(const uint8_t* bytes) { return HalfToFloat(Load16(bytes)); }

void DequantiseF32(const uint8_t* blocks, int64_t num_blocks, float* out) {
  if (num_blocks == 0) return;  // `blocks` may be null
  std::memcpy(out, blocks, static_cast<size_t>(num_blocks) * sizeof(float));
}

void DequantiseF16(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  for (int64_t i = 0; i < num_blocks; ++i) out[i] = LoadHalf(blocks + 2 * i);
}

void DequantiseBF16(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  for (int64_t i = 0; i < num_blocks; ++i) {
    out[i] = kernels::BFloat16ToFloat(Load16(blocks + 2 * i));
  }
}

// d, nibbles[16]: y = (q - 8) * d.
void DequantiseQ4_0(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 18;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kBlock) {
    const float d = LoadHalf(blocks);
    const uint8_t* nibbles = blocks + 2;
    for (int j = 0; j < 16; ++j) out[j] = static_cast<float>((nibbles[j] & 0xf) - 8) * d;
    for (int j = 0; j < 16; ++j) out[16 + j] = static_cast<float>((nibbles[j] >> 4) - 8) * d;
  }
}

// d, m, nibbles[16]: y = q * d + m.
void DequantiseQ4_1(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 20;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kBlock) {
    const float d = LoadHalf(blocks);
    const float m = LoadHalf(blocks + 2);
    const uint8_t* nibbles = blocks + 4;
    for (int j = 0; j < 16; ++j) out[j] = static_cast<float>(nibbles[j] & 0xf) * d + m;
    for (int j = 0; j < 16; ++j) out[16 + j] = static_cast<float>(nibbles[j] >> 4) * d + m;
  }
}

// The 5-bit value of element j of a block: its nibble, and bit j of `high` as the fifth bit.
inline int FiveBits(const uint8_t* nibbles, uint32_t high, int j) {
  const int low = j < 16 ? nibbles[j] & 0xf : nibbles[j - 16] >> 4;
  return low | static_cast<int>((high >> j) & 1u) << 4;
}

// d, high[4], nibbles[16]: y = (q - 16) * d.
void DequantiseQ5_0(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 22;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kBlock) {
    const float d = LoadHalf(blocks);
    const uint32_t high = Load32(blocks + 2);
    for (int j = 0; j < kBlock; ++j) {
      out[j] = static_cast<float>(FiveBits(blocks + 6, high, j) - 16) * d;
    }
  }
}

// d, m, high[4], nibbles[16]: y = q * d + m.
void DequantiseQ5_1(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 24;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kBlock) {
    const float d = LoadHalf(blocks);
    const float m = LoadHalf(blocks + 2);
    const uint32_t high = Load32(blocks + 4);
    for (int j = 0; j < kBlock; ++j) {
      out[j] = static_cast<float>(FiveBits(blocks + 8, high, j)) * d + m;
    }
  }
}

// d, int8[32]: y = q * d.
void DequantiseQ8_0(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 34;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kBlock) {
    const float d = LoadHalf(blocks);
    const int8_t* q = reinterpret_cast<const int8_t*>(blocks + 2);
    for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(q[j]) * d;
  }
}

// Two-bit fields of a K block: 64 bytes in two halves of 32; half h, shift 2 * k holds elements 128
// h + 32 k + 0..31.
inline int TwoBits(const uint8_t* quads, int element) {
  const int half = element / 128;
  const int shift = element % 128 / 32 * 2;
  return (quads[half * 32 + element % 32] >> shift) & 3;
}

// scales[16] (low nibble: scale, high nibble: minimum), quads[64], d, dmin; sub-blocks of 16:
// y = (d * scale) * q - dmin * minimum.
void DequantiseQ2_K(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 84;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kSuperBlock) {
    const float d = LoadHalf(blocks + 80);
    const float dmin = LoadHalf(blocks + 82);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(blocks[sub] & 0xf);
      const float minimum = dmin * static_cast<float>(blocks[sub] >> 4);
      for (int j = 0; j < 16; ++j) {
        const int element = sub * 16 + j;
        out[element] = scale * static_cast<float>(TwoBits(blocks + 16, element)) - minimum;
      }
    }
  }
}

// Scale `sub` (0..15) of a Q3_K block, -32..31: four bits in bytes 0..7, two more in bytes 8..11.
inline int ScaleQ3_K(const uint8_t* packed, int sub) {
  const int low = sub < 8 ? packed[sub] & 0xf : packed[sub - 8] >> 4;
  const int high = (packed[8 + sub % 4] >> (sub / 4 * 2)) & 3;
  return (low | high << 4) - 32;
}

// masks[32] (bit k of byte l: element 32 k + l keeps its value, else 4 less), quads[64],
// scales[12], d; sub-blocks of 16: y = (d * scale) * q.
void DequantiseQ3_K(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 110;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kSuperBlock) {
    const float d = LoadHalf(blocks + 108);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(ScaleQ3_K(blocks + 96, sub));
      for (int j = 0; j < 16; ++j) {
        const int element = sub * 16 + j;
        const int keep = (blocks[element % 32] >> (element / 32)) & 1;
        const int q = TwoBits(blocks + 32, element) - (1 - keep) * 4;
        out[element] = scale * static_cast<float>(q);
      }
    }
  }
}

// Scale and minimum `sub` (0..7) of a Q4_K or Q5_K block: 6 bits each in 12 bytes. The first four
// lie in the low six bits of bytes 0..3 and 4..7; the others in the nibbles of bytes 8..11, with
// the top two bits of bytes 0..7.
struct ScaleAndMinimum {
  int scale, minimum;
};
inline ScaleAndMinimum SixBitPair(const uint8_t* packed, int sub) {
  if (sub < 4) return {packed[sub] & 63, packed[sub + 4] & 63};
  return {(packed[sub + 4] & 0xf) | (packed[sub - 4] >> 6) << 4,
          (packed[sub + 4] >> 4) | (packed[sub] >> 6) << 4};
}

// d, dmin, scales[12], nibbles[128]; sub-blocks of 32, two share 32 bytes (low, then high nibbles):
// y = (d * scale) * q - dmin * minimum.
void DequantiseQ4_K(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 144;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kSuperBlock) {
    const float d = LoadHalf(blocks);
    const float dmin = LoadHalf(blocks + 2);
    for (int sub = 0; sub < 8; ++sub) {
      const ScaleAndMinimum pair = SixBitPair(blocks + 4, sub);
      const float scale = d * static_cast<float>(pair.scale);
      const float minimum = dmin * static_cast<float>(pair.minimum);
      const uint8_t* nibbles = blocks + 16 + sub / 2 * 32;
      const int shift = sub % 2 * 4;
      for (int j = 0; j < 32; ++j) {
        out[sub * 32 + j] = scale * static_cast<float>((nibbles[j] >> shift) & 0xf) - minimum;
      }
    }
  }
}

// d, dmin, scales[12], high[32] (bit `sub` of byte j: fifth bit of element 32 sub + j),
// nibbles[128]; else as Q4_K.
void DequantiseQ5_K(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 176;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kSuperBlock) {
    const float d = LoadHalf(blocks);
    const float dmin = LoadHalf(blocks + 2);
    const uint8_t* high = blocks + 16;
    for (int sub = 0; sub < 8; ++sub) {
      const ScaleAndMinimum pair = SixBitPair(blocks + 4, sub);
      const float scale = d * static_cast<float>(pair.scale);
      const float minimum = dmin * static_cast<float>(pair.minimum);
      const uint8_t* nibbles = blocks + 48 + sub / 2 * 32;
      const int shift = sub % 2 * 4;
      for (int j = 0; j < 32; ++j) {
        const int q = ((nibbles[j] >> shift) & 0xf) | ((high[j] >> sub) & 1) << 4;
        out[sub * 32 + j] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

// low[128], high[64], int8 scales[16], d; sub-blocks of 16: y = (d * scale) * (q - 32). In each
// half of 128 elements, quarter k (32 elements) has its low nibbles in bytes 32 * (k % 2).. (low
// nibble for k < 2, else high) and its upper two bits at shift 2 k of the half's 32 high bytes.
void DequantiseQ6_K(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 210;
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kSuperBlock) {
    const float d = LoadHalf(blocks + 208);
    const int8_t* scales = reinterpret_cast<const int8_t*>(blocks + 192);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]);
      const int half = sub / 8;
      const int quarter = sub % 8 / 2;
      const int begin = sub % 2 * 16;  // within the quarter
      const uint8_t* low = blocks + half * 64 + quarter % 2 * 32 + begin;
      const uint8_t* high = blocks + 128 + half * 32 + begin;
      const int low_shift = quarter / 2 * 4;
      const int high_shift = quarter * 2;
      for (int j = 0; j < 16; ++j) {
        const int q = ((low[j] >> low_shift) & 0xf) | ((high[j] >> high_shift) & 3) << 4;
        out[sub * 16 + j] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

// exponent, nibbles[16]: y = 2^(exponent - 128) * twice the E2M1 number (OCP Microscaling formats).
void DequantiseMxfp4(const uint8_t* __restrict blocks, int64_t num_blocks, float* __restrict out) {
  constexpr int kBytes = 17;
  constexpr float kTwiceE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  for (int64_t i = 0; i < num_blocks; ++i, blocks += kBytes, out += kBlock) {
    const uint32_t e = blocks[0];
    const float d = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * kTwiceE2m1[blocks[1 + j] & 0xf];
      out[j + 16] = d * kTwiceE2m1[blocks[1 + j] >> 4];
    }
  }
}

constexpr TensorType kTypes[] = {
    {0, "F32", 1, 4, DequantiseF32},
    {1, "F16", 1, 2, DequantiseF16},
    {2, "Q4_0", kBlock, 18, DequantiseQ4_0},
    {3, "Q4_1", kBlock, 20, DequantiseQ4_1},
    {6, "Q5_0", kBlock, 22, DequantiseQ5_0},
    {7, "Q5_1", kBlock, 24, DequantiseQ5_1},
    {8, "Q8_0", kBlock, 34, DequantiseQ8_0},
    {10, "Q2_K", kSuperBlock, 84, DequantiseQ2_K},
    {11, "Q3_K", kSuperBlock, 110, DequantiseQ3_K},
    {12, "Q4_K", kSuperBlock, 144, DequantiseQ4_K},
    {13, "Q5_K", kSuperBlock, 176, DequantiseQ5_K},
    {14, "Q6_K", kSuperBlock, 210, DequantiseQ6_K},
    {30, "BF16", 1, 2, DequantiseBF16},
    {39, "MXFP4", kBlock, 17, DequantiseMxfp4},
};

}  // namespace

std::span<const TensorType> SupportedTensorTypes() { return kTypes; }

const TensorType* FindTensorType(uint32_t id) {
  for (const TensorType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

}  // namespace acuity::engine
