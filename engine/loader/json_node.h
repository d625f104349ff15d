// Reading JSON files of a model directory with errors that name the file, the path within it, the
// value and the limit. For sources only: no header of ours but those of readers includes this.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/status_util.h"
#include "nlohmann/json.hpp"

namespace acuity::engine {

using Json = nlohmann::json;

// Parses `bytes`. `filter`, if any, is nlohmann's parser callback: it returns false for what is not
// to be kept. InvalidArgument with the byte offset if they are not one JSON value.
absl::StatusOr<Json> ParseJson(std::string_view bytes,
                               const Json::parser_callback_t& filter = nullptr);

// A value and where it is: "normalizer.normalizers[1]". A view: REQUIRES the document outlives it.
class JsonNode {
 public:
  JsonNode(const Json* value, std::string path) : value_(value), path_(std::move(path)) {}

  const Json& value() const { return *value_; }
  const std::string& path() const { return path_; }
  bool Has(std::string_view key) const;  // and it is not null

  // Members of an object. A member that is null counts as absent; an absent one gives the default
  // or, if there is none, InvalidArgument; one of another type or out of range gives
  // InvalidArgument.
  absl::StatusOr<JsonNode> Member(std::string_view key) const;
  absl::StatusOr<std::string> String(
      std::string_view key, std::optional<std::string_view> default_value = std::nullopt) const;
  absl::StatusOr<bool> Bool(std::string_view key,
                            std::optional<bool> default_value = std::nullopt) const;
  absl::StatusOr<int64_t> Integer(std::string_view key, int64_t min, int64_t max,
                                  std::optional<int64_t> default_value = std::nullopt) const;

  // Calls `visit` for each element of the array `key`, which must be there.
  absl::Status ForEach(std::string_view key,
                       const std::function<absl::Status(const JsonNode&)>& visit) const;
  // InvalidArgument if this is no object, or has a member of another name.
  absl::Status AllowOnly(std::initializer_list<std::string_view> keys) const;

  template <typename... Parts>
  absl::Status Error(const Parts&... parts) const {
    return InvalidArgument(path_.empty() ? "" : path_ + " ", parts...);
  }

 private:
  std::string PathOf(std::string_view key) const;
  // Null if absent.
  const Json* Find(std::string_view key) const;
  absl::Status WrongType(std::string_view key, const char* wanted) const;
  absl::Status Missing(std::string_view key) const;

  const Json* value_;
  std::string path_;
};

}  // namespace acuity::engine
