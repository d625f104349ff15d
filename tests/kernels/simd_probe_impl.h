// Included once by each simd_probe_<isa>.cc.
#pragma once

#include "kernels/cpu/simd.h"
#include "tests/kernels/simd_probe.h"

namespace acuity::kernels {
namespace {

void Exp2Array(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) Store(out + i, Exp2(Load(x + i)));
}
void ExpArray(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) Store(out + i, Exp(Load(x + i)));
}
void LoadArray(const uint16_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) Store(out + i, LoadBFloat16(x + i));
}
void StoreArray(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; i += kLanes) StoreBFloat16(out + i, Load(x + i));
}
float ReduceAddArray(const float* x) { return ReduceAdd(Load(x)); }
float ReduceMaxArray(const float* x) { return ReduceMax(Load(x)); }
void MulAddArray(const float* a, const float* b, const float* c, float* out) {
  Store(out, MulAdd(Load(a), Load(b), Load(c)));
}

constexpr SimdProbe kProbe = {kLanes,      &Exp2Array,      &ExpArray,       &LoadArray,
                              &StoreArray, &ReduceAddArray, &ReduceMaxArray, &MulAddArray};

}  // namespace
}  // namespace acuity::kernels
