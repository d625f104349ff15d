// The arithmetic of drawing a token, shared by the CPU sampler and the CUDA kernel: both see the
// same bits. Host and device; pure.
#pragma once

#include <bit>
#include <cstdint>

namespace acuity::kernels {

// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014; Stafford's variant 13): a
// bijection.
constexpr uint64_t Mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// In [0, 1), a multiple of 2^-53; depends on (seed, position) only, so nothing is carried from
// token to token, and neither the batch nor a preemption can shift the stream. SplitMix64's stream
// of `seed`, read at `position`; the seed is mixed first, so that neighbouring seeds do not give
// shifted copies of one stream.
constexpr double UniformAt(uint64_t seed, int64_t position) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const uint64_t start = Mix64(seed + kGolden);
  const uint64_t bits = Mix64(start + (static_cast<uint64_t>(position) + 1) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// e^x for x <= 0, relative error below 2e-7; 0 below -87, where float32 leaves its normal range.
// Inlined into loops, which then vectorise: the C library's expf is a call for each element. The
// same bits wherever products and sums are not fused (no FMA: compile with -ffp-contract=off or
// -fmad=false where there is one).
constexpr float ExpOfNegative(float x) {
  constexpr float kSmallest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x > kSmallest ? x : kSmallest;
  const float n = (clamped * 1.44269504088896341f + kRound) - kRound;
  // ln 2 in two parts (Cody and Waite): the first has few enough bits for n * part to be exact.
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  // Cephes expf: e^r on [-ln2/2, ln2/2].
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const float power = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < kSmallest ? 0.0f : p * power;
}

}  // namespace acuity::kernels
