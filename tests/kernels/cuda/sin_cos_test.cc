// The rotary kernel's own sin and cos; nothing of them needs a GPU's rules.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/cuda/qkv_append.cuh"

namespace acuity::kernels::cuda {
namespace {

TEST(CudaSinCos, AgainstDoubleUpToAMillion) {
  std::mt19937 rng(3);
  const auto check = [](float angle) {
    float sine, cosine;
    SinCos(angle, &sine, &cosine);
    ASSERT_NEAR(std::sin(static_cast<double>(angle)), sine, 2e-7) << angle;
    ASSERT_NEAR(std::cos(static_cast<double>(angle)), cosine, 2e-7) << angle;
  };
  for (float limit : {1.0f, 100.0f, 131072.0f, 1048575.0f}) {
    std::uniform_real_distribution<float> uniform(0, limit);
    for (int i = 0; i < 100000; ++i) check(uniform(rng));
    for (int i = 0; i < 2000; ++i) check(std::floor(uniform(rng)));
  }
  check(0);
}

}  // namespace
}  // namespace acuity::kernels::cuda
