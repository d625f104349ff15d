// config.json of a Hugging Face model directory, read with care: every key must be asked for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace acuity::engine {

// A JSON object whose keys are marked as they are read. A key that is null is absent, as in
// transformers. Errors are InvalidArgument and name the key, its value and what is allowed. Copies
// share the marks. Not thread-safe.
class HfConfig {
 public:
  // At most 4 MB, nested at most 8 deep, no key twice in one object.
  static absl::StatusOr<HfConfig> Parse(std::string_view json);

  bool Has(std::string_view key) const;
  bool HasKey(std::string_view key) const;  // even if it is null
  // Without a default, the key must be there.
  absl::StatusOr<int64_t> Integer(std::string_view key, int64_t min, int64_t max,
                                  std::optional<int64_t> absent = std::nullopt) const;
  absl::StatusOr<float> Number(std::string_view key, float min, float max,
                               std::optional<float> absent = std::nullopt) const;
  absl::StatusOr<bool> Bool(std::string_view key, std::optional<bool> absent = std::nullopt) const;
  absl::StatusOr<std::string> String(std::string_view key,
                                     std::optional<std::string> absent = std::nullopt) const;
  absl::StatusOr<std::vector<float>> Numbers(std::string_view key, size_t count, float min,
                                             float max) const;
  absl::StatusOr<std::vector<std::string>> Strings(std::string_view key, size_t count) const;
  // The object under `key`, which must be there.
  absl::StatusOr<HfConfig> Object(std::string_view key) const;

  // If the key is there, it must be false, 0, "", [] or {}: the only value that changes nothing.
  absl::Status MustBeOff(std::string_view key) const;
  // Marks keys that do not change what the model computes.
  void Ignore(std::initializer_list<std::string_view> keys) const;
  // An error that names the first key which nobody asked for, here or in an object within.
  absl::Status CheckAllRead() const;

  // InvalidArgument: "config.json: `key` is `its value`; `rule`".
  absl::Status Bad(std::string_view key, std::string_view rule) const;

 private:
  struct Node;
  explicit HfConfig(std::shared_ptr<Node> node) : node_(std::move(node)) {}

  std::shared_ptr<Node> node_;
};

}  // namespace acuity::engine
