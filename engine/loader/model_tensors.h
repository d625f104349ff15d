// Which tensors a model has, by their canonical names (GGUF's).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/loader/model_spec.h"

namespace acuity::engine {

struct ModelTensor {
  std::string name;
  int64_t rows = 0;  // 1 for vectors
  int64_t columns = 0;
};

// Every tensor that a checkpoint of this spec has, and no other. Experts' matrices lie one below
// the other: rows = experts * rows of one.
std::vector<ModelTensor> ModelTensors(const ModelSpec& spec);

}  // namespace acuity::engine
