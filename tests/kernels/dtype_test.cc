#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace acuity::kernels {
namespace {

TEST(DTypeTest, Sizes) {
  EXPECT_EQ(SizeOf(DType::kFloat32), 4u);
  EXPECT_EQ(SizeOf(DType::kBFloat16), 2u);
  EXPECT_EQ(SizeOf(DType::kFloat16), 2u);
  EXPECT_EQ(SizeOf(DType::kFloat8), 1u);
}

TEST(DTypeTest, EveryBFloat16RoundTrips) {
  for (uint32_t bits = 0; bits <= 0xffffu; ++bits) {
    const float value = BFloat16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(value)))) << bits;
    } else {
      EXPECT_EQ(FloatToBFloat16(value), bits);
    }
  }
}

// Between each pair of neighbours: below the middle goes down, above it up, and the middle to the
// even one.
TEST(DTypeTest, RoundsToNearestEven) {
  for (uint32_t sign : {0u, 0x8000u}) {
    for (uint32_t low = 0; low < 0x7f80u; ++low) {
      const uint32_t base = (sign | low) << 16;
      const auto round = [&](uint32_t fraction) {
        return FloatToBFloat16(std::bit_cast<float>(base | fraction));
      };
      ASSERT_EQ(round(0x0001), sign | low);
      ASSERT_EQ(round(0x7fff), sign | low);
      ASSERT_EQ(round(0x8000), sign | (low + (low & 1)));
      ASSERT_EQ(round(0x8001), sign | (low + 1));
      ASSERT_EQ(round(0xffff), sign | (low + 1));
    }
  }
}

TEST(DTypeTest, NanStaysNanAndOverflowIsInfinity) {
  // A NaN whose payload sits in the low half only would round to infinity.
  for (uint32_t bits : {0x7f800001u, 0x7f80ffffu, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::bit_cast<float>(bits))))) << bits;
  }
  EXPECT_EQ(FloatToBFloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(FloatToBFloat16(-std::numeric_limits<float>::infinity()), 0xff80);
}

TEST(DTypeTest, Float16IsMantissaTimesPowerOfTwo) {
  for (uint32_t bits = 0; bits <= 0xffffu; ++bits) {
    const float value = Float16ToFloat(static_cast<uint16_t>(bits));
    const int exponent = static_cast<int>(bits >> 10 & 31),
              fraction = static_cast<int>(bits & 1023);
    if (exponent == 31 && fraction != 0) {
      EXPECT_TRUE(std::isnan(value) && std::isnan(Float16ToFloat(FloatToFloat16(value)))) << bits;
      continue;
    }
    float expected = exponent == 31 ? std::numeric_limits<float>::infinity()
                     : exponent == 0
                         ? std::ldexp(static_cast<float>(fraction), -24)
                         : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    if ((bits & 0x8000u) != 0) expected = -expected;
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(FloatToFloat16(value), bits);
  }
}

TEST(DTypeTest, Float16RoundsToNearestEven) {
  for (uint32_t low = 0; low < 0x7c00u; ++low) {
    const float below = Float16ToFloat(static_cast<uint16_t>(low));
    // The neighbour of the greatest would be 2^16.
    const float above = low == 0x7bffu ? 65536.0f : Float16ToFloat(static_cast<uint16_t>(low + 1));
    const float middle = below + (above - below) / 2;
    ASSERT_EQ(FloatToFloat16(middle), low + (low & 1)) << low;
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, above)), low + 1);
    ASSERT_EQ(FloatToFloat16(-middle), 0x8000u | (low + (low & 1)));
  }
}

TEST(DTypeTest, Float8IsMantissaTimesPowerOfTwo) {
  for (uint32_t bits = 0; bits <= 0xffu; ++bits) {
    const float value = Float8ToFloat(static_cast<uint8_t>(bits));
    const int exponent = static_cast<int>(bits >> 3 & 15), fraction = static_cast<int>(bits & 7);
    if (exponent == 15 && fraction == 7) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_EQ(FloatToFloat8(value), bits);
      continue;
    }
    float expected = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                   : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    if ((bits & 0x80u) != 0) expected = -expected;
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(FloatToFloat8(value), bits);
  }
  EXPECT_EQ(Float8ToFloat(0x7e), kMaxFloat8);
}

TEST(DTypeTest, Float8RoundsToNearestEven) {
  for (uint32_t low = 0; low < 0x7eu; ++low) {
    const float below = Float8ToFloat(static_cast<uint8_t>(low));
    const float above = Float8ToFloat(static_cast<uint8_t>(low + 1));
    const float middle = below + (above - below) / 2;
    ASSERT_EQ(FloatToFloat8(middle), low + (low & 1)) << low;
    ASSERT_EQ(FloatToFloat8(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(FloatToFloat8(std::nextafter(middle, above)), low + 1);
    ASSERT_EQ(FloatToFloat8(-middle), 0x80u | (low + (low & 1)));
  }
}

TEST(DTypeTest, Float8SaturatesAndShowsWhatIsBroken) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FloatToFloat8(480), 0x7e);
  EXPECT_EQ(FloatToFloat8(-std::numeric_limits<float>::max()), 0xfe);
  EXPECT_TRUE(std::isnan(Float8ToFloat(FloatToFloat8(kInfinity))));
  EXPECT_TRUE(std::isnan(Float8ToFloat(FloatToFloat8(-kInfinity))));
  for (const float held : {0.0f, -448.0f, 464.0f, kInfinity, -std::nanf("")}) {
    EXPECT_FALSE(SaturatesFloat8(held)) << held;
  }
  for (const float beyond : {std::nextafter(464.0f, 465.0f), -480.0f, 3e38f}) {
    EXPECT_TRUE(SaturatesFloat8(beyond)) << beyond;
  }
}

}  // namespace
}  // namespace acuity::kernels
