// Limits of a plausible model, whatever format it comes in.
#pragma once

#include <cstdint>

namespace acuity::engine {

// Each a few times the largest known. With them no product of two sizes wraps an int32.
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHiddenSize = 1 << 15;
inline constexpr int64_t kMaxHeads = 1024;
inline constexpr int64_t kMaxFfnSize = 1 << 18;
// What the attention kernels take.
inline constexpr int64_t kHeadDimStep = 16;
inline constexpr int64_t kMaxHeadDim = 256;

}  // namespace acuity::engine
