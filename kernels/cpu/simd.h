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
  return (Vec)((IVec)p + ((IVec)shifted << 23));
}

inline constexpr float kRoundMagic =
    12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer

// 2^x for x <= ~126; below -126 it goes to 0. Relative error < 2e-7. NaN stays NaN: a corrupted row
// must not look like a sound one.
inline Vec Exp2(Vec x) {
  const Vec clamped = Max(Broadcast(-126.5f), x);
  const Vec shifted = clamped + Broadcast(kRoundMagic);
  const Vec result = Exp2Parts(clamped - (shifted - Broadcast(kRoundMagic)), shifted);
  return x < Broadcast(-126.0f) ? Vec{} : result;
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
  return x < Broadcast(-87.3f) ? Vec{} : result;
}

}  // namespace
}  // namespace acuity::kernels
