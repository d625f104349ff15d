// A GGUF file of a supported architecture, as a Checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/gguf.h"
#include "engine/loader/gguf_metadata.h"

namespace acuity::engine {

// As Checkpoint::Open, over bytes in memory. REQUIRES: `bytes` outlives the checkpoint and does not
// change.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(std::span<const uint8_t> bytes);

// As Checkpoint::Open, of a GGUF file.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGgufFile(const std::string& path);

// What the metadata alone says of a model of the "llama" architecture; vocab_size, tied_embeddings
// and rope_factors are left for the tensors to say. Reads, or refuses, every key under "llama.".
absl::StatusOr<ModelSpec> ReadLlamaSpec(GgufMetadata* metadata);

// Completes `spec` from the tensors, after checking that the file has exactly those that it must
// have, with the right shapes.
absl::Status CheckLlamaTensors(const GgufFile& file, ModelSpec* spec);

}  // namespace acuity::engine
