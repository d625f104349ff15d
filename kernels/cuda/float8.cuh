// 8-bit floats (DType::kFloat8) in registers. No instruction for them that sm_80 lacks: a byte's
// bits, moved, are a float16's.
#pragma once

#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::cuda {

// Of four bytes, bytes 0 and 2, or 1 and 3, as float16s in the lower and the upper half of a word.
struct WidePairs {
  uint32_t even, odd;
};

// 2^-8 times their values, exactly; NaN stays NaN.
//
//   byte       s eeee mmm              e biased by 7, subnormals at e = 0
//   float16    s 0eeee mmm0000000      e biased by 15: the same number times 2^-8, subnormals too
//   NaN        s 11111 1110000000      bit 7 of the magnitude is set where all seven others are
ACUITY_DEVICE WidePairs WidenFloat8(uint32_t bytes) {
  constexpr uint32_t kSigns = 0x80008000, kMagnitudes = 0x7f807f80;
  uint32_t magnitude = bytes & 0x7f7f7f7f;
  magnitude |= (magnitude + 0x01010101) & 0x80808080;
  return {(bytes << 8 & kSigns) | (magnitude << 7 & kMagnitudes),
          (bytes & kSigns) | (magnitude >> 1 & kMagnitudes)};
}

}  // namespace acuity::kernels::cuda
