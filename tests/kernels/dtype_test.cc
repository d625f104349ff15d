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

}  // namespace
}  // namespace acuity::kernels
