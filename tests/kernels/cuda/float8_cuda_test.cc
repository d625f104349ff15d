#include "kernels/cuda/float8.cuh"

#include <gtest/gtest.h>

#include <cmath>

namespace acuity::kernels::cuda {
namespace {

// Every byte in every place, beside others.
TEST(CudaFloat8, WideningIsExactAndKeepsNan) {
  for (uint32_t byte = 0; byte < 256; ++byte) {
    for (int place = 0; place < 4; ++place) {
      for (uint32_t other : {0x00000000u, 0x7e817f80u, 0xffffffffu}) {
        const uint32_t bytes = (other & ~(0xffu << 8 * place)) | byte << 8 * place;
        const WidePairs wide = WidenFloat8(bytes);
        float x[4];
        prim::Unpack<DType::kFloat16>(wide.even, x[0], x[2]);
        prim::Unpack<DType::kFloat16>(wide.odd, x[1], x[3]);
        for (int i = 0; i < 4; ++i) {
          const float value = Float8ToFloat(static_cast<uint8_t>(bytes >> 8 * i));
          ASSERT_EQ(std::isnan(x[i]), std::isnan(value)) << std::hex << bytes << ", " << i;
          ASSERT_EQ(std::signbit(x[i]), std::signbit(value)) << std::hex << bytes << ", " << i;
          if (std::isnan(value)) continue;
          ASSERT_EQ(256 * x[i], value) << std::hex << bytes << ", " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace acuity::kernels::cuda
