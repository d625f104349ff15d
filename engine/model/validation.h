// What every decoder demands of a model and of a batch, whatever machine it runs on.
#pragma once

#include "absl/status/status.h"
#include "engine/loader/model_spec.h"
#include "engine/model/model_runner.h"

namespace acuity::engine {

// What a reader of a format guarantees, and what a decoder relies on. InvalidArgument names the
// field, its value and the limit. kv_memory_bytes apart: each decoder decides what too little is.
absl::Status CheckModel(const ModelSpec& spec, const ModelOptions& options);

// Null, or what is wrong with the batch for this runner.
const char* BatchProblem(const Batch& batch, const ModelRunner& runner);

}  // namespace acuity::engine
