// Array versions of simd.h's functions, one table per instruction set, for simd_test.
#pragma once

#include <cstdint>

namespace acuity::kernels {

struct SimdProbe {
  int lanes;
  void (*exp2)(const float* x, int64_t count, float* out);  // count: a multiple of lanes, as below
  void (*exp)(const float* x, int64_t count, float* out);
  void (*load_bfloat16)(const uint16_t* x, int64_t count, float* out);
  void (*store_bfloat16)(const float* x, int64_t count, uint16_t* out);
  void (*load_float8)(const uint8_t* x, int64_t count, float* out);
  void (*store_float8)(const float* x, int64_t count, uint8_t* out);
  float (*reduce_add)(const float* x);  // of `lanes` floats
  float (*reduce_max)(const float* x);
  void (*mul_add)(const float* a, const float* b, const float* c, float* out);
};

extern const SimdProbe kSimdPortable;
extern const SimdProbe kSimdAvx2;
extern const SimdProbe kSimdAvx512;

}  // namespace acuity::kernels
