// Sums over a warp and over a block, in an order that depends on the number of threads only.
#pragma once

#include <bit>

#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::cuda {

// What prim exchanges has 4 bytes.
ACUITY_DEVICE float ExchangeXor(float value, int mask) { return prim::ShuffleXor(value, mask); }
ACUITY_DEVICE int ExchangeXor(int value, int mask) { return prim::ShuffleXor(value, mask); }
ACUITY_DEVICE double ExchangeXor(double value, int mask) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint32_t low = prim::ShuffleXor(static_cast<uint32_t>(bits), mask);
  const uint32_t high = prim::ShuffleXor(static_cast<uint32_t>(bits >> 32), mask);
  return std::bit_cast<double>(uint64_t{high} << 32 | low);
}
ACUITY_DEVICE int64_t ExchangeXor(int64_t value, int mask) {
  const auto bits = static_cast<uint64_t>(value);
  const uint32_t low = prim::ShuffleXor(static_cast<uint32_t>(bits), mask);
  const uint32_t high = prim::ShuffleXor(static_cast<uint32_t>(bits >> 32), mask);
  return static_cast<int64_t>(uint64_t{high} << 32 | low);
}
ACUITY_DEVICE int Exchange(int value, int from_lane) { return prim::Shuffle(value, from_lane); }
ACUITY_DEVICE double Exchange(double value, int from_lane) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint32_t low = prim::Shuffle(static_cast<uint32_t>(bits), from_lane);
  const uint32_t high = prim::Shuffle(static_cast<uint32_t>(bits >> 32), from_lane);
  return std::bit_cast<double>(uint64_t{high} << 32 | low);
}

// Over groups of `lanes` neighbouring lanes, a power of two; the result in each of them.
template <typename T>
ACUITY_DEVICE T GroupSum(T value, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) value += ExchangeXor(value, mask);
  return value;
}
template <typename T>
ACUITY_DEVICE T WarpSum(T value) {
  ACUITY_UNROLL for (int mask = prim::kWarpSize / 2; mask > 0; mask /= 2) {
    value += ExchangeXor(value, mask);
  }
  return value;
}

// Over a block of kWarps warps; the result in every thread. `scratch` has kWarps elements, and a
// BlockSync lies between this and whatever else uses them, before and after.
template <int kWarps, typename T>
ACUITY_DEVICE T BlockSum(T value, prim::Shared<T> scratch) {
  value = WarpSum(value);
  const int warp = prim::WarpIndex();
  if (prim::LaneIndex() == 0) scratch[warp] = value;
  prim::BlockSync();
  T sum = 0;
  ACUITY_UNROLL for (int i = 0; i < kWarps; ++i) sum += scratch[i];
  return sum;
}

}  // namespace acuity::kernels::cuda
