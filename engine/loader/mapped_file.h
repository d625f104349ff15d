// A regular file mapped read-only. Used for everything that the loader reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace acuity::engine {

// Immutable after Open; thread-safe. The bytes are the file's: whoever shrinks the file while it is
// mapped kills the process with SIGBUS, so a model is replaced by renaming a new file over it,
// never by writing into it.
class MappedFile {
 public:
  // NotFound if there is no such file, PermissionDenied if it may not be read, InvalidArgument if
  // it is not a regular file (directory, FIFO, device, socket), is empty or is larger than
  // `max_bytes`. Never blocks on a FIFO.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path,
                                                          uint64_t max_bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  const std::span<const uint8_t> bytes_;
};

}  // namespace acuity::engine
