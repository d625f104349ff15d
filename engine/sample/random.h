// Counter-based uniform numbers: the value depends on (seed, position) only, so nothing is carried
// from token to token, and neither the batch nor a preemption can shift the stream.
#pragma once

#include <cstdint>

namespace acuity::engine {

// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014; Stafford's variant 13): a
// bijection.
constexpr uint64_t Mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// In [0, 1), a multiple of 2^-53. SplitMix64's stream of `seed`, read at `position`; the seed is
// mixed first, so that neighbouring seeds do not give shifted copies of one stream.
constexpr double UniformAt(uint64_t seed, int64_t position) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const uint64_t start = Mix64(seed + kGolden);
  const uint64_t bits = Mix64(start + (static_cast<uint64_t>(position) + 1) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace acuity::engine
