// A GGUF file of a supported architecture, as a Checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"

namespace acuity::engine {

// As Checkpoint::Open, over bytes in memory. REQUIRES: `bytes` outlives the checkpoint and does not
// change.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(std::span<const uint8_t> bytes);

// As Checkpoint::Open, of a GGUF file.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGgufFile(const std::string& path);

}  // namespace acuity::engine
