#include "engine/model/rope.h"

#include <cmath>

namespace acuity::engine {

std::vector<float> InverseFrequencies(const RopeSpec& rope) {
  std::vector<float> result(static_cast<size_t>(rope.rotary_dim / 2));
  for (size_t i = 0; i < result.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.rotary_dim);
    result[i] = 1.0f / std::pow(rope.theta, exponent);
    if (!rope.factors.empty()) result[i] /= rope.factors[i];
  }
  return result;
}

std::vector<float> FrequenciesBeyond(const RopeSpec& rope) {
  if (rope.slopes.empty()) return {};
  std::vector<float> result = InverseFrequencies(rope);
  for (size_t i = 0; i < rope.slopes.size(); ++i) result[i] *= rope.slopes[i];
  return result;
}

}  // namespace acuity::engine
