// A mixture of experts on a GPU: which experts compute which rows of a step, as
// engine/model/experts.h decides it on the CPU, and the sum of what they say.
//
//   RouteExperts -> GatherRows (rows of the slots) -> each expert's GEMMs over its slots
//   -> CombineExperts
//
// Conventions as in kernels/cuda/layer_ops.h.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace acuity::kernels::cuda {

// Each row chooses the `per_token` experts with its largest logits, of equal ones the lower expert;
// a softmax of the chosen logits (or of all) weighs them. The assignments ("slots") are sorted by
// expert, then by row. A NaN among a row's logits makes its weights NaN.
struct RouteExpertsParams {
  const float* logits = nullptr;  // [rows, count]
  int64_t rows = 0;               // at most 2^20
  int count = 0;                  // of experts: 1 to 1024
  int per_token = 0;              // 1 to 32, at most count
  bool normalised = true;         // the softmax is over the chosen logits, else over all
  // A row's choices, likeliest first.
  int32_t* experts = nullptr;  // [rows, per_token]
  float* weights = nullptr;    // [rows, per_token]
  int32_t* slots = nullptr;    // [rows, per_token]
  // The slots: those of expert e are [begin[e], begin[e + 1]).
  int32_t* begin = nullptr;      // [count + 1]
  int32_t* slot_rows = nullptr;  // [rows * per_token]
};
// Two kernels.
[[nodiscard]] const char* RouteExperts(const RouteExpertsParams& params, void* stream);

// out[row] = sum over the row's choices, likeliest first, of weight * routed[slot].
struct CombineExpertsParams {
  DType dtype = DType::kBFloat16;  // of routed and out: kBFloat16 or kFloat16
  const void* routed = nullptr;    // [rows * per_token, dim], by slot
  const int32_t* slots = nullptr;  // [rows, per_token]
  const float* weights = nullptr;  // [rows, per_token]
  int per_token = 0;
  int64_t rows = 0;
  int dim = 0;          // >= 1; 16 bytes at a time if it is a multiple of 8
  void* out = nullptr;  // [rows, dim]
};
[[nodiscard]] const char* CombineExperts(const CombineExpertsParams& params, void* stream);

}  // namespace acuity::kernels::cuda
