// Row statistics for tests of what sums them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/attention_stats.h"

namespace acuity::kernels {

// [num_layers, rows, num_heads], as rows with `n` keys each could have left it, and a few that no
// attention is the origin of: without a number, infinite, and with an entropy rounded above ln n.
inline std::vector<RowStats> RandomRowStats(int num_layers, const std::vector<int32_t>& n,
                                            const std::vector<int32_t>& windows, int num_heads,
                                            uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<RowStats> stats;
  for (int layer = 0; layer < num_layers; ++layer) {
    for (const int32_t keys : n) {
      const int32_t visible = windows[layer] > 0 ? std::min(keys, windows[layer]) : keys;
      const float most = std::log(static_cast<float>(visible));
      for (int head = 0; head < num_heads; ++head) {
        const float u = uniform(generator);
        RowStats& row = stats.emplace_back();
        row.entropy = u < 0.02f   ? std::nanf("")
                      : u < 0.04f ? HUGE_VALF
                      : u < 0.06f ? most * 1.0001f
                                  : most * uniform(generator);
        row.max_probability = u < 0.1f ? 1 : uniform(generator);
      }
    }
  }
  return stats;
}

}  // namespace acuity::kernels
