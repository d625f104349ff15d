// Typed, range-checked reading of a GGUF file's metadata, which also remembers what was read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/gguf.h"

namespace acuity::engine {

// Every getter marks its key as read. A key that is absent gives the default or, if there is none,
// InvalidArgument; a key of another type or out of range gives InvalidArgument naming the key, its
// value and the limit. Not thread-safe.
class GgufMetadata {
 public:
  // REQUIRES: *file outlives this.
  explicit GgufMetadata(const GgufFile* file);

  bool Has(std::string_view key) const { return file_->FindValue(key) != nullptr; }

  bool IsArray(std::string_view key) const {
    const GgufValue* value = file_->FindValue(key);
    return value != nullptr && value->type == GgufType::kArray;
  }

  // Integers are uint32 or uint64 in the file, as the format's specification has it for every count
  // and id.
  absl::StatusOr<int64_t> Integer(std::string_view key, int64_t min, int64_t max,
                                  std::optional<int64_t> default_value = std::nullopt);
  absl::StatusOr<float> Float(std::string_view key, float min, float max,
                              std::optional<float> default_value = std::nullopt);
  absl::StatusOr<bool> Bool(std::string_view key, bool default_value);
  // Strings are views into the file.
  absl::StatusOr<std::string_view> String(
      std::string_view key, uint64_t max_bytes,
      std::optional<std::string_view> default_value = std::nullopt);
  // An array that must be there, of min_count..max_count elements.
  absl::StatusOr<const GgufValue*> Array(std::string_view key, GgufType element_type,
                                         uint64_t min_count, uint64_t max_count);

  // InvalidArgument naming the first key that starts with `prefix` and that no getter asked for.
  absl::Status CheckAllRead(std::string_view prefix) const;

 private:
  // The value, marked as read; null if it is absent and may be; InvalidArgument if it is absent and
  // may not be.
  absl::StatusOr<const GgufValue*> Find(std::string_view key, bool required);

  const GgufFile* const file_;
  std::vector<bool> read_;  // parallel to file_->metadata
};

}  // namespace acuity::engine
