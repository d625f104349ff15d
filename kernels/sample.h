// What one token is drawn by: by engine/sample on the CPU, by kernels/cuda/sample.h on a GPU.
#pragma once

#include <cstdint>

namespace acuity::kernels {

// Order: temperature, top-k, top-p, min-p. Greedy takes the lowest id among equal logits; top-k
// keeps exactly k, ties by id; top-p keeps the fewest most likely tokens that hold top_p of what
// top-k kept, ties by id; min-p is relative to the most likely token.
struct SampleRow {
  float temperature = 1;  // 0: greedy, and the rest is not read
  int32_t top_k = 0;      // 0: all
  float top_p = 1;        // (0, 1]
  float min_p = 0;        // [0, 1]
  uint64_t seed = 0;
  int64_t position = 0;  // of the token to be drawn
};

}  // namespace acuity::kernels
