#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"
#include "tests/kernels/simd_probe.h"

namespace acuity::kernels {
namespace {

constexpr int kMaxLanes = 16;

std::vector<const SimdProbe*> Probes() {
  std::vector<const SimdProbe*> probes = {&kSimdPortable};
  if (ActiveIsa() >= Isa::kAvx2) probes.push_back(&kSimdAvx2);
  if (ActiveIsa() >= Isa::kAvx512) probes.push_back(&kSimdAvx512);
  return probes;
}

// Evenly spaced points of [low, high], in a number that every width divides.
std::vector<float> Points(double low, double high) {
  constexpr int kCount = 1 << 20;
  std::vector<float> points(kCount);
  for (int i = 0; i < kCount; ++i) {
    points[static_cast<size_t>(i)] = static_cast<float>(low + (high - low) * i / (kCount - 1));
  }
  return points;
}

template <typename Oracle>
double WorstRelativeError(const std::vector<float>& x, const std::vector<float>& y, Oracle oracle) {
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = oracle(double{x[i]});
    worst = std::max(worst, std::abs(y[i] - expected) / expected);
  }
  return worst;
}

TEST(SimdTest, Exp2IsWithinItsClaim) {
  for (const SimdProbe* probe : Probes()) {
    for (auto [low, high] : {std::pair{-126.0, 126.0}, {-1.0, 1.0}, {-30.0, 0.0}}) {
      const std::vector<float> x = Points(low, high);
      std::vector<float> y(x.size());
      probe->exp2(x.data(), static_cast<int64_t>(x.size()), y.data());
      const double worst = WorstRelativeError(x, y, [](double v) { return std::exp2(v); });
      EXPECT_LT(worst, 2e-7) << probe->lanes << " lanes, [" << low << ", " << high << "]";
    }
  }
}

TEST(SimdTest, ExpIsWithinItsClaim) {
  for (const SimdProbe* probe : Probes()) {
    for (auto [low, high] : {std::pair{-87.3, 87.0}, {-1.0, 1.0}, {-30.0, 0.0}}) {
      const std::vector<float> x = Points(low, high);
      std::vector<float> y(x.size());
      probe->exp(x.data(), static_cast<int64_t>(x.size()), y.data());
      const double worst = WorstRelativeError(x, y, [](double v) { return std::exp(v); });
      EXPECT_LT(worst, 3e-7) << probe->lanes << " lanes, [" << low << ", " << high << "]";
    }
  }
}

TEST(SimdTest, ExponentialsOfSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float lowest = std::numeric_limits<float>::lowest();
  for (const SimdProbe* probe : Probes()) {
    std::vector<float> x(kMaxLanes, 0.0f), y(kMaxLanes);
    x[1] = -infinity, x[2] = lowest, x[3] = -1000.0f;
    probe->exp2(x.data(), probe->lanes, y.data());
    EXPECT_EQ(y[0], 1.0f);
    for (size_t i : {1, 2, 3}) EXPECT_EQ(y[i], 0.0f);
    probe->exp(x.data(), probe->lanes, y.data());
    EXPECT_EQ(y[0], 1.0f);
    for (size_t i : {1, 2, 3}) EXPECT_EQ(y[i], 0.0f);
  }
}

// Whatever its payload: of 0xffffffff, the sums of bits that scale a result made a finite number.
TEST(SimdTest, ExponentialsOfNanAreNan) {
  for (const SimdProbe* probe : Probes()) {
    for (uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7fffffffu, 0xffffffffu}) {
      std::vector<float> x(kMaxLanes, std::bit_cast<float>(bits)), y(kMaxLanes, 0.0f);
      probe->exp2(x.data(), probe->lanes, y.data());
      EXPECT_TRUE(std::isnan(y[0])) << bits;
      probe->exp(x.data(), probe->lanes, y.data());
      EXPECT_TRUE(std::isnan(y[0])) << bits;
    }
  }
}

TEST(SimdTest, Exp2OfIntegersIsExact) {
  for (const SimdProbe* probe : Probes()) {
    for (int e = -126; e <= 126; ++e) {
      std::vector<float> x(kMaxLanes, static_cast<float>(e)), y(kMaxLanes);
      probe->exp2(x.data(), probe->lanes, y.data());
      ASSERT_EQ(y[0], std::ldexp(1.0f, e)) << e;
    }
  }
}

TEST(SimdTest, BFloat16MatchesTheScalarConversions) {
  std::vector<uint16_t> bits(1 << 16), stored(1 << 16);
  std::vector<float> floats(1 << 16);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  for (const SimdProbe* probe : Probes()) {
    probe->load_bfloat16(bits.data(), 1 << 16, floats.data());
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), static_cast<uint32_t>(i) << 16);
    }
    // Ties, just below, just above, and NaNs with a payload in the low half only.
    for (uint32_t fraction : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      for (size_t i = 0; i < bits.size(); ++i) {
        floats[i] = std::bit_cast<float>(static_cast<uint32_t>(i) << 16 | fraction);
      }
      probe->store_bfloat16(floats.data(), 1 << 16, stored.data());
      for (size_t i = 0; i < bits.size(); ++i)
        ASSERT_EQ(stored[i], FloatToBFloat16(floats[i])) << i;
    }
  }
}

TEST(SimdTest, EveryFloat8LoadsAsItsValue) {
  std::vector<uint8_t> bits(256);
  std::vector<float> floats(256);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint8_t>(i);
  for (const SimdProbe* probe : Probes()) {
    probe->load_float8(bits.data(), 256, floats.data());
    for (size_t i = 0; i < bits.size(); ++i) {
      const float expected = Float8ToFloat(bits[i]);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(floats[i])) << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(expected)) << i;
      }
    }
  }
}

// Every sign, exponent and leading bits, infinities and NaNs among them, with what lies below the
// last bit kept: nothing, a tie, just below and above it, all ones; a tie of subnormals lies
// higher.
TEST(SimdTest, Float8StoresAsTheScalarConversion) {
  std::vector<float> floats(1 << 16);
  std::vector<uint8_t> stored(1 << 16);
  for (const SimdProbe* probe : Probes()) {
    for (uint32_t fraction : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      for (size_t i = 0; i < floats.size(); ++i) {
        floats[i] = std::bit_cast<float>(static_cast<uint32_t>(i) << 16 | fraction);
      }
      probe->store_float8(floats.data(), 1 << 16, stored.data());
      for (size_t i = 0; i < floats.size(); ++i) {
        ASSERT_EQ(stored[i], FloatToFloat8(floats[i])) << floats[i];
      }
    }
  }
}

TEST(SimdTest, ReductionsAndMulAdd) {
  std::vector<float> x(kMaxLanes), y(kMaxLanes), z(kMaxLanes), out(kMaxLanes);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i * 7 % 5) - 2.0f;
    y[i] = static_cast<float>(i);
    z[i] = 0.5f;
  }
  for (const SimdProbe* probe : Probes()) {
    float sum = 0, most = x[0];
    for (size_t i = 0; i < static_cast<size_t>(probe->lanes); ++i) {
      sum += x[i];
      most = std::max(most, x[i]);
    }
    EXPECT_EQ(probe->reduce_add(x.data()), sum);
    EXPECT_EQ(probe->reduce_max(x.data()), most);
    probe->mul_add(x.data(), y.data(), z.data(), out.data());
    for (size_t i = 0; i < static_cast<size_t>(probe->lanes); ++i) {
      EXPECT_EQ(out[i], x[i] * y[i] + 0.5f);
    }
  }
}

}  // namespace
}  // namespace acuity::kernels
