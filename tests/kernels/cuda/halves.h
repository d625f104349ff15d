// Values of 16 bits for the tests of the small kernels.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace acuity::kernels::cuda {

inline constexpr DType kTypes[] = {DType::kBFloat16, DType::kFloat16};
inline constexpr uint16_t kGuard = 0x7a5a;

inline uint16_t Round(DType dtype, float x) {
  return dtype == DType::kBFloat16 ? FloatToBFloat16(x) : FloatToFloat16(x);
}
inline float Widen(DType dtype, uint16_t x) {
  return dtype == DType::kBFloat16 ? BFloat16ToFloat(x) : Float16ToFloat(x);
}
// Half a unit of the last place, relative, with room for float32 arithmetic.
inline double Tolerance(DType dtype) { return dtype == DType::kBFloat16 ? 0x1.04p-8 : 0x1.08p-11; }

inline std::vector<float> Random(int64_t size, uint32_t seed, float scale = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& v : values) v = normal(rng);
  return values;
}

// Random values of `dtype`; `wide` receives them as float32.
inline std::vector<uint16_t> RandomHalves(DType dtype, int64_t size, uint32_t seed,
                                          std::vector<float>* wide, float scale = 1) {
  *wide = Random(size, seed, scale);
  std::vector<uint16_t> values;
  for (float& v : *wide) {
    values.push_back(Round(dtype, v));
    v = Widen(dtype, values.back());
  }
  return values;
}

inline void ExpectNear(double expected, double actual, double relative, double absolute,
                       const std::string& where) {
  ASSERT_NEAR(expected, actual, relative * std::abs(expected) + absolute) << where;
}

}  // namespace acuity::kernels::cuda
