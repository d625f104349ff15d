#include "engine/loader/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/base/limits.h"

namespace acuity::engine {

double RopeFrequency(const RopeSpec& rope, size_t i) {
  return std::pow(double{rope.theta}, -2.0 * static_cast<double>(i) / rope.rotary_dim);
}

double YarnMagnitude(double factor, double m) {
  return factor <= 1 ? 1 : 0.1 * m * std::log(factor) + 1;
}

void ApplyYarn(const YarnScaling& yarn, RopeSpec* rope, int* max_context) {
  // The dimension whose wave turns `turns` times within the original context.
  const auto dimension = [&](double turns) {
    return rope->rotary_dim * std::log(yarn.original_context / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(double{rope->theta}));
  };
  double low = dimension(yarn.many_turns), high = dimension(yarn.few_turns);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope->rotary_dim - 1.0);
  if (low == high) high += 0.001;
  rope->factors.resize(static_cast<size_t>(rope->rotary_dim / 2));
  for (size_t i = 0; i < rope->factors.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    rope->factors[i] = static_cast<float>(1 / (ramp / yarn.factor + (1 - ramp)));
  }
  const double extended =
      std::min<double>(double{yarn.factor} * yarn.original_context, kMaxContextTokens);
  *max_context = std::max(*max_context, static_cast<int>(extended));
}

double LongRopeMagnitude(int max_context, int original_context) {
  const double factor = static_cast<double>(max_context) / original_context;
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(double(original_context)));
}

}  // namespace acuity::engine
