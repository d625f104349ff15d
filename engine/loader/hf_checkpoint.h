// A Hugging Face model directory of a supported architecture, as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// Reads config.json and the safetensors of `directory`; the tokenizer is the caller's. Errors are
// InvalidArgument that name the file, the key or tensor, its value and what is allowed; NotFound if
// there is no config.json, or no safetensors. Every key of config.json and every tensor is either
// understood or refused, but for those that change nothing. If the model has more tokens than the
// tokenizer, unused ones fill the tokenizer up; fewer are an error.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHf(const std::string& directory,
                                                   TokenizerSpec tokenizer);

}  // namespace acuity::engine
