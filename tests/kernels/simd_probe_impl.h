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
void LoadBFloat16Array(const uint16_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) Store(out + i, LoadBFloat16(x + i));
}
void StoreBFloat16Array(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; i += kLanes) StoreBFloat16(out + i, Load(x + i));
}
void LoadFloat8Array(const uint8_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) Store(out + i, LoadFloat8(x + i));
}
void StoreFloat8Array(const float* x, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; i += kLanes) StoreFloat8(out + i, Load(x + i));
}
float ReduceAddArray(const float* x) { return ReduceAdd(Load(x)); }
float ReduceMaxArray(const float* x) { return ReduceMax(Load(x)); }
void MulAddArray(const float* a, const float* b, const float* c, float* out) {
  Store(out, MulAdd(Load(a), Load(b), Load(c)));
}

constexpr SimdProbe kProbe = {
    kLanes,           &Exp2Array,        &ExpArray,       &LoadBFloat16Array, &StoreBFloat16Array,
    &LoadFloat8Array, &StoreFloat8Array, &ReduceAddArray, &ReduceMaxArray,    &MulAddArray};

}  // namespace
}  // namespace acuity::kernels
