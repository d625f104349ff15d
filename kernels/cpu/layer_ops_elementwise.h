// The elementwise operations of one instruction set: included once by each layer_ops_<isa>.cc,
// under the same rules as layer_ops_row.h.
#pragma once

#include <math.h>

#include <cstdint>

#include "kernels/cpu/layer_ops_kernels.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

// x / (1 + e^-y) with e^-|y|, which cannot overflow.
inline Vec TimesSigmoid(Vec x, Vec y) {
  const Vec negative = y < Vec{} ? y : -y;
  const Vec e = Exp(negative);
  const Vec one = Broadcast(1.0f);
  return x * (y < Vec{} ? e : one) / (one + e);
}

struct Silu {
  static Vec Apply(Vec x) { return TimesSigmoid(x, x); }
};

// (1 + tanh u) / 2 = sigmoid(2u).
struct GeluTanh {
  static Vec Apply(Vec x) {
    const Vec cubic = x + Broadcast(0.044715f) * x * x * x;
    return TimesSigmoid(x, Broadcast(1.59576912f) * cubic);  // 2 sqrt(2 / pi)
  }
};

struct Gelu {
  static Vec Apply(Vec x) {
    Vec result;
    for (int i = 0; i < kLanes; ++i) {
      result[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.707106781f));  // 1 / sqrt 2
    }
    return result;
  }
};

struct ClampedSwiglu {
  static Vec Apply(Vec x) {
    const Vec g = Min(x, Broadcast(7.0f));
    return TimesSigmoid(g, Broadcast(1.702f) * g);
  }
  static Vec Gate(Vec gate, Vec up) {
    const Vec u = Max(Min(up, Broadcast(7.0f)), Broadcast(-7.0f));
    return Apply(gate) * (u + Broadcast(1.0f));
  }
};

template <typename Function>
Vec Gate(Vec gate, Vec up) {
  return Function::Apply(gate) * up;
}
template <>
Vec Gate<ClampedSwiglu>(Vec gate, Vec up) {
  return ClampedSwiglu::Gate(gate, up);
}

// The last, incomplete vector of a row, padded with zeros.
inline Vec LoadTail(const float* p, int64_t count) {
  float padded[kLanes] = {};
  __builtin_memcpy(padded, p, static_cast<size_t>(count) * sizeof(float));
  return Load(padded);
}
inline void StoreTail(float* p, Vec v, int64_t count) {
  float padded[kLanes];
  Store(padded, v);
  __builtin_memcpy(p, padded, static_cast<size_t>(count) * sizeof(float));
}

template <typename Function>
void ActivateAs(const float* gate, const float* up, int64_t dim, float* out) {
  int64_t i = 0;
  if (up == nullptr) {
    for (; i + kLanes <= dim; i += kLanes) Store(out + i, Function::Apply(Load(gate + i)));
    if (i < dim) StoreTail(out + i, Function::Apply(LoadTail(gate + i, dim - i)), dim - i);
    return;
  }
  for (; i + kLanes <= dim; i += kLanes) {
    Store(out + i, Gate<Function>(Load(gate + i), Load(up + i)));
  }
  if (i == dim) return;
  const int64_t tail = dim - i;
  StoreTail(out + i, Gate<Function>(LoadTail(gate + i, tail), LoadTail(up + i, tail)), tail);
}

void ActivateRow(Activation activation, const float* gate, const float* up, int64_t dim,
                 float* out) {
  switch (activation) {
    case Activation::kSilu:
      return ActivateAs<Silu>(gate, up, dim, out);
    case Activation::kGelu:
      return ActivateAs<Gelu>(gate, up, dim, out);
    case Activation::kGeluTanh:
      return ActivateAs<GeluTanh>(gate, up, dim, out);
    case Activation::kClampedSwiglu:
      return ActivateAs<ClampedSwiglu>(gate, up, dim, out);
  }
}

void AddScaledRow(const float* x, float scale, int64_t dim, float* y) {
  for (int64_t i = 0; i < dim; ++i) y[i] += scale * x[i];
}

// tanh |u| = (1 - e) / (1 + e) with e = e^(-2 |u|).
inline Vec Tanh(Vec u) {
  const Vec one = Broadcast(1.0f);
  const Vec magnitude = u < Vec{} ? -u : u;
  const Vec e = Exp(Broadcast(-2.0f) * magnitude);
  const Vec t = (one - e) / (one + e);
  return u < Vec{} ? -t : t;
}

void ScaleAndCapRow(float scale, float cap, int64_t dim, float* x) {
  if (cap == 0) {
    for (int64_t i = 0; i < dim; ++i) x[i] *= scale;
    return;
  }
  const Vec in = Broadcast(scale / cap), out = Broadcast(cap);
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) Store(x + i, out * Tanh(in * Load(x + i)));
  if (i < dim) StoreTail(x + i, out * Tanh(in * LoadTail(x + i, dim - i)), dim - i);
}

}  // namespace
}  // namespace acuity::kernels
