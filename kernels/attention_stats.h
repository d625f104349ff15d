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

#include "kernels/host_device.h"

namespace acuity::kernels {

// What one (row, head) of attention looked like. A row without keys has entropy 0, max_probability
// 0, lse -1e30. With a logit that is NaN or infinite the entropy is NaN.
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
  if (state.l == 0) return {};
  const float log2_l = StateLog2(state.l);
  const float entropy = kLn2 * (log2_l - state.t / state.l);
  return {entropy < 0 ? 0.0f : entropy, 1.0f / state.l, kLn2 * (state.m + log2_l)};  // NaN stays
}

}  // namespace acuity::kernels
