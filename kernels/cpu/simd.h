// A float vector as wide as the instruction set this translation unit is compiled for, on GCC
// vector extensions. Include only from per-ISA translation units; everything is in an anonymous
// namespace, so that code compiled with AVX-512 can never be the copy that another unit links to.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace acuity::kernels {
namespace {

#if defined(ACUITY_EMULATED_LANES)  // tests: another width's code paths, lowered by the compiler
inline constexpr int kLanes = ACUITY_EMULATED_LANES;
#elif defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), may_alias));
typedef int32_t IVec __attribute__((vector_size(kLanes * sizeof(int32_t)), may_alias));

typedef uint16_t HalfVec __attribute__((vector_size(kLanes * sizeof(uint16_t)), may_alias));
typedef uint32_t UVec __attribute__((vector_size(kLanes * sizeof(uint32_t)), may_alias));

inline Vec Broadcast(float x) { return x - Vec{}; }
inline Vec Load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void Store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

// a * b + c, one rounding where the ISA has FMA.
inline Vec MulAdd(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

inline Vec Max(Vec a, Vec b) { return a > b ? a : b; }  // b if one is NaN
inline Vec Min(Vec a, Vec b) { return a < b ? a : b; }

// kLanes bfloat16 values as float32.
inline Vec LoadBFloat16(const uint16_t* p) {
#if defined(__AVX512F__)  // the intrinsics' undefined operands warn (GCC PR 105593)
  HalfVec half;
  std::memcpy(&half, p, sizeof half);
  return (Vec)(__builtin_convertvector(half, UVec) << 16);
#elif defined(__AVX2__)
  return (Vec)_mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
#else
  IVec bits;
  for (int i = 0; i < kLanes; ++i)
    bits[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16);
  return (Vec)bits;
#endif
}

// Rounds to bfloat16, nearest even; NaN stays NaN.
inline void StoreBFloat16(uint16_t* p, Vec v) {
  const UVec bits = (UVec)v;
  const UVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UVec nan = (bits >> 16) | 0x40u;
  const HalfVec half =
      __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded, HalfVec);
  std::memcpy(p, &half, sizeof half);
}

// E4M3 as float32: a lane has the sign in bit 31 and the magnitude from bit 20; the others do not
// matter. Read with the exponent of a normal number, m eighths of 2^-6 come out as
// y = 2^-7 (1 + m / 8), and 2y - 2^-6 is what they are; of a normal number that is no smaller than
// y. No step meets a float32 subnormal, which processors are slow at.
inline Vec Float8At20(IVec bits) {
  const Vec y = (Vec)((bits & 0x07f00000) + (120 << 23));
  const Vec magnitude = Min(MulAdd(y, Broadcast(2.0f), Broadcast(-0x1p-6f)), y);
  const IVec nan = y == Broadcast(480.0f);
  return (Vec)((IVec)magnitude | nan | (bits & INT32_MIN));
}

// kLanes E4M3 values as float32.
inline Vec LoadFloat8(const uint8_t* p) {
#if defined(__AVX512F__)  // masked: see LoadBFloat16
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return Float8At20((IVec)_mm512_maskz_cvtepi8_epi32(0xffff, bytes) << 20);
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return Float8At20((IVec)_mm256_cvtepi8_epi32(bytes) << 20);
#else
  IVec bits;
  for (int i = 0; i < kLanes; ++i) bits[i] = static_cast<int8_t>(p[i]);
  return Float8At20(bits << 20);
#endif
}

// Rounds to E4M3 as FloatToFloat8 does: to nearest even, to 448 at most; NaN and infinity are NaN.
inline void StoreFloat8(uint8_t* p, Vec v) {
  const IVec magnitude = (IVec)v & 0x7fffffff;
  const IVec finite = magnitude < 0x43e00000 ? magnitude : IVec{} + 0x43e00000;
  const IVec normal = ((finite + 0x7ffff + ((finite >> 20) & 1)) >> 20) - (120 << 3);
  const IVec subnormal = (IVec)((Vec)finite + Broadcast(0x1p14f)) - 0x46800000;
  const IVec number = magnitude < 0x3c800000 ? subnormal : normal;
  const IVec rounded = magnitude < 0x7f800000 ? number : IVec{} + 0x7f;
  const IVec bits = rounded | ((IVec)v >> 24 & 0x80);
#if defined(__AVX512F__)
  _mm512_mask_cvtepi32_storeu_epi8(p, 0xffff, (__m512i)bits);
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_packus_epi32((__m256i)bits, (__m256i)bits);
  const __m256i quads = _mm256_packus_epi16(pairs, pairs);
  const int low = _mm256_extract_epi32(quads, 0), high = _mm256_extract_epi32(quads, 4);
  std::memcpy(p, &low, sizeof low);
  std::memcpy(p + 4, &high, sizeof high);
#else
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>(bits[i]);
#endif
}

typedef float Quad __attribute__((vector_size(16), may_alias));
typedef float Octet __attribute__((vector_size(32), may_alias));

// Sums (or maximises) the lanes by halving: one fixed order.
template <typename V, typename Function>
inline float Reduce(V v, const Function& function) {
  Quad quad;
  if constexpr (kLanes == 4) {
    quad = (Quad)v;
  } else {
    Octet octet;
    if constexpr (kLanes == 8) {
      octet = (Octet)v;
    } else {
      octet = function(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                       __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    }
    quad = function(__builtin_shufflevector(octet, octet, 0, 1, 2, 3),
                    __builtin_shufflevector(octet, octet, 4, 5, 6, 7));
  }
  const Quad pair = function(quad, __builtin_shufflevector(quad, quad, 2, 3, 2, 3));
  return function(pair, __builtin_shufflevector(pair, pair, 1, 1, 1, 1))[0];
}
inline float ReduceAdd(Vec v) {
  return Reduce(v, [](auto a, auto b) { return a + b; });
}
inline float ReduceMax(Vec v) {
  return Reduce(v, [](auto a, auto b) { return a > b ? a : b; });
}

// 2^f * 2^n for f in [-0.5, 0.5], where `shifted` is 1.5 * 2^23 + n. Degree-6 minimax of the
// relative error.
inline Vec Exp2Parts(Vec f, Vec shifted) {
  Vec p = Broadcast(1.5403530e-4f);
  p = MulAdd(p, f, Broadcast(1.3398874e-3f));
  p = MulAdd(p, f, Broadcast(9.6181291e-3f));
  p = MulAdd(p, f, Broadcast(5.5503286e-2f));
  p = MulAdd(p, f, Broadcast(2.4022651e-1f));
  p = MulAdd(p, f, Broadcast(6.9314720e-1f));
  p = MulAdd(p, f, Broadcast(1.0f));
  return (Vec)((UVec)p + ((UVec)shifted << 23));
}

inline constexpr float kRoundMagic =
    12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer

// 2^x for x <= ~126; below -126 it goes to 0. Relative error < 2e-7. NaN stays NaN: a corrupted row
// must not look like a sound one.
inline Vec Exp2(Vec x) {
  const Vec clamped = Max(Broadcast(-126.5f), x);
  const Vec shifted = clamped + Broadcast(kRoundMagic);
  const Vec result = Exp2Parts(clamped - (shifted - Broadcast(kRoundMagic)), shifted);
  return x >= Broadcast(-126.0f) ? result : Max(Vec{}, x);
}

// e^x for x <= ~87; below -87.3 it goes to 0. Relative error < 3e-7: unlike Exp2(x * log2(e)) it
// does not grow with |x|, because n * ln2 is subtracted in two parts, of which the first product is
// exact. NaN stays NaN.
inline Vec Exp(Vec x) {
  const Vec log2e = Broadcast(1.44269504f);
  const Vec clamped = Max(Broadcast(-87.6f), x);
  const Vec shifted = MulAdd(clamped, log2e, Broadcast(kRoundMagic));
  const Vec n = shifted - Broadcast(kRoundMagic);
  const Vec high = MulAdd(n, Broadcast(-0.693359375f), clamped);
  const Vec remainder = MulAdd(n, Broadcast(2.12194440e-4f), high);
  const Vec result = Exp2Parts(remainder * log2e, shifted);
  return x >= Broadcast(-87.3f) ? result : Max(Vec{}, x);
}

}  // namespace
}  // namespace acuity::kernels
