// The files of a model directory, whose names and links may come from strangers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/mapped_file.h"

namespace acuity::engine {

// Maps DIRECTORY/NAME. `name` must be a plain file name: not empty, no '/', not "." or "..".
// Symbolic links are followed if they end at a file in the directory itself or, where the directory
// is a snapshot of the hub's cache (.../snapshots/REVISION), in that cache's blobs
// (.../blobs). InvalidArgument for any other name or target and for a link that ends nowhere;
// else as MappedFile::Open.
absl::StatusOr<std::unique_ptr<MappedFile>> OpenModelFile(const std::string& directory,
                                                          std::string_view name,
                                                          uint64_t max_bytes);

}  // namespace acuity::engine
