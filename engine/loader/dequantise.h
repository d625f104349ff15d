// The tensor types of GGUF that Acuity reads, and how their blocks become float32.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace acuity::engine {

// One storage type. A row is a whole number of blocks; blocks need no alignment.
struct TensorType {
  uint32_t id;            // the number in the file
  std::string_view name;  // "Q4_1"
  int32_t elements_per_block;
  int32_t bytes_per_block;
  // Writes num_blocks * elements_per_block floats. Any bits are valid input: damaged scales give
  // Inf or NaN, never a trap. Products and sums are rounded one at a time (no fused multiply-add),
  // as the formats' definition does.
  void (*dequantise)(const uint8_t* blocks, int64_t num_blocks, float* out);
};

// F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4.
std::span<const TensorType> SupportedTensorTypes();

// Null if `id` is not one of them. The result lives for ever.
const TensorType* FindTensorType(uint32_t id);

}  // namespace acuity::engine
