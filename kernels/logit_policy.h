// What happens to an attention logit between q.k and the softmax, as data.
//
//   z_ij = elem(c_i * softmax_scale * q_i.k_j),  c_i = RowScale(policy, head, n_i, pos_i)
//
// n_i is the number of keys that row i may attend to (cached ones count; padding never does):
// pos+1, or min(pos+1, window) under a sliding window. c_i is one float32 factor per row, so a
// policy costs nothing per logit and neither K nor V depends on it. Sources: SSMax, Nakanishi,
// arXiv 2501.19399, eq. 3 (natural logarithm); log-n: Qwen-1 `use_logn_attn`; Llama-4
// `attn_temperature_tuning`; Ministral-3 `llama_4_scaling_beta`; sharpen: docs/calibration.md.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"

namespace acuity::kernels {

enum class RowScaleKind : uint8_t {
  kSoftmax,    // 1
  kSsmax,      // s_h ln n + b_h, s of either sign
  kLogN,       // log_L(n) beyond L, else 1
  kLlama4,     // 1 + attn_scale * log1p(floor((pos + 1) / floor_scale))
  kMinistral,  // 1 + beta * ln(1 + floor(pos / original_context))
  kSharpen,    // 1 + b_h + s_h ln(n / L) beyond L, else 1
};

// The row scale of one layer. Plain data; `s` and `b` are not owned and outlive every call that
// uses them.
struct LogitPolicy {
  RowScaleKind kind = RowScaleKind::kSoftmax;
  const float* s = nullptr;  // [num_heads], kSsmax and kSharpen only
  const float* b = nullptr;  // [num_heads] or null (0), kSsmax and kSharpen only
  // L of kLogN (> 1) and kSharpen (>= 1), floor_scale of kLlama4, original context of kMinistral.
  float length = 1;
  float strength = 0;  // attn_scale of kLlama4, beta of kMinistral
};

// The multiplier of row (head, n, pos). n >= 1 visible keys, pos >= 0 absolute position.
ACUITY_HOST_DEVICE inline float RowScale(const LogitPolicy& policy, int head, int64_t n,
                                         int64_t pos) {
  switch (policy.kind) {
    case RowScaleKind::kSoftmax:
      return 1.0f;
    case RowScaleKind::kSsmax:
      return policy.s[head] * std::log(static_cast<float>(n)) +
             (policy.b == nullptr ? 0.0f : policy.b[head]);
    case RowScaleKind::kLogN:
      return static_cast<float>(n) > policy.length
                 ? std::log(static_cast<float>(n)) / std::log(policy.length)
                 : 1.0f;
    case RowScaleKind::kLlama4:
      return 1.0f +
             policy.strength * std::log1p(std::floor(static_cast<float>(pos + 1) / policy.length));
    case RowScaleKind::kMinistral:
      return 1.0f +
             policy.strength * std::log1p(std::floor(static_cast<float>(pos) / policy.length));
    case RowScaleKind::kSharpen:
      if (static_cast<float>(n) <= policy.length) return 1.0f;
      return 1.0f + (policy.b == nullptr ? 0.0f : policy.b[head]) +
             policy.s[head] * std::log(static_cast<float>(n) / policy.length);
  }
  return 1.0f;
}

}  // namespace acuity::kernels
