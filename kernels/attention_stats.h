// The attention distribution of one row, measured inside the online softmax. The one definition.
//
// State, centred on the running maximum so that nothing cancels, in log2 units: u = z log2(e) - m
// <= 0, p = 2^u;
//   l = sum p,  T = sum p u.  On a new maximum, with D = m_old - m_new <= 0 and a = 2^D:  T <- a (T
//   + D l),  l <- a l.
// Then H = ln2 (log2 l - T / l) nats, p_max = 2^(max - m) / l (1 / l), lse = ln2 (m + log2 l).
// All statistics are over the visible real keys: a sink logit takes part in the output's
// denominator only.
#pragma once

#include <cmath>

#include "kernels/host_device.h"

namespace acuity::kernels {

// What one (row, head) of attention looked like. A row without keys has entropy 0, max_probability
// 0, lse -1e30.
struct RowStats {
  float entropy = 0;           // nats, in [0, ln n]
  float max_probability = 0;   // in [1/n, 1]
  float log_sum_exp = -1e30f;  // nats, of the final logits
};

inline constexpr float kLn2 = 0.69314718055994530942f;
inline constexpr float kLog2E = 1.44269504088896340736f;
// Stands for -infinity: finite, so that 0 * kMinusInfinity is 0 and differences are never NaN.
inline constexpr float kMinusInfinity = -1e30f;

struct SoftmaxState {
  float m = kMinusInfinity;
  float l = 0;
  float t = 0;
};

ACUITY_HOST_DEVICE [[gnu::always_inline]] inline float StateExp2(float x) {
#ifdef __CUDA_ARCH__
  return exp2f(x);
#else
  return __builtin_exp2f(x);
#endif
}
ACUITY_HOST_DEVICE [[gnu::always_inline]] inline float StateLog2(float x) {
#ifdef __CUDA_ARCH__
  return log2f(x);
#else
  return __builtin_log2f(x);
#endif
}

// Moves the state to the maximum `m_new` >= state.m; returns the factor by which accumulated output
// shrinks. Always inlined: per-ISA translation units must not emit a copy that others could link
// to.
ACUITY_HOST_DEVICE [[gnu::always_inline]] inline float Rescale(SoftmaxState& state, float m_new) {
  const float d = state.m - m_new > -252.0f ? state.m - m_new : -252.0f;
  const float a = StateExp2(d);
  state.t = a * (state.t + d * state.l);
  state.l = a * state.l;
  state.m = m_new;
  return a;
}

ACUITY_HOST_DEVICE [[gnu::always_inline]] inline RowStats Finalise(const SoftmaxState& state) {
  if (!(state.l > 0)) return {};
  const float log2_l = StateLog2(state.l);
  const float entropy = kLn2 * (log2_l - state.t / state.l);
  return {entropy > 0 ? entropy : 0.0f, 1.0f / state.l, kLn2 * (state.m + log2_l)};
}

// Merges the statistics of two disjoint key ranges of one row; weights (w_a, w_b) are those of
// their outputs.
struct MergeWeights {
  float a, b;
};
inline MergeWeights Merge(RowStats& a, const RowStats& b) {
  if (b.log_sum_exp <= kMinusInfinity) return {1, 0};
  if (a.log_sum_exp <= kMinusInfinity) {
    a = b;
    return {0, 1};
  }
  const float high = a.log_sum_exp > b.log_sum_exp ? a.log_sum_exp : b.log_sum_exp;
  const float lse =
      high + std::log(std::exp(a.log_sum_exp - high) + std::exp(b.log_sum_exp - high));
  const float wa = std::exp(a.log_sum_exp - lse);
  const float wb = std::exp(b.log_sum_exp - lse);
  float entropy = 0;
  if (wa > 0) entropy += wa * (a.entropy + lse - a.log_sum_exp);
  if (wb > 0) entropy += wb * (b.entropy + lse - b.log_sum_exp);
  const float pa = wa * a.max_probability, pb = wb * b.max_probability;
  a = {entropy, pa > pb ? pa : pb, lse};
  return {wa, wb};
}

}  // namespace acuity::kernels
