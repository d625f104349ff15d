#include "engine/loader/gguf_metadata.h"

#include <cstring>

#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

template <typename... Parts>
absl::Status Bad(std::string_view key, const Parts&... parts) {
  return InvalidArgument("GGUF: key ", QuoteForError(key), parts...);
}

absl::Status WrongType(std::string_view key, GgufType type, std::string_view wanted) {
  return Bad(key, " is of type ", GgufTypeName(type), "; it must be ", wanted);
}

template <typename T>
T Load(const GgufValue& value) {
  T result;
  std::memcpy(&result, value.payload.data(), sizeof(result));
  return result;
}

}  // namespace

GgufMetadata::GgufMetadata(const GgufFile* file) : file_(file), read_(file->metadata.size()) {}

absl::StatusOr<const GgufValue*> GgufMetadata::Find(std::string_view key, bool required) {
  const GgufValue* value = file_->FindValue(key);
  if (value == nullptr) {
    if (required) return Bad(key, " is missing");
    return nullptr;
  }
  const size_t value_offset =
      reinterpret_cast<const char*>(value) - reinterpret_cast<const char*>(file_->metadata.data());
  read_[value_offset / sizeof(GgufKeyValue)] = true;
  return value;
}

absl::StatusOr<int64_t> GgufMetadata::Integer(std::string_view key, int64_t min, int64_t max,
                                              std::optional<int64_t> default_value) {
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* value, Find(key, !default_value.has_value()));
  if (value == nullptr) return *default_value;
  uint64_t number = 0;
  if (value->type == GgufType::kUint32) {
    number = Load<uint32_t>(*value);
  } else if (value->type == GgufType::kUint64) {
    number = Load<uint64_t>(*value);
  } else {
    return WrongType(key, value->type, "uint32 or uint64");
  }
  if (number > static_cast<uint64_t>(INT64_MAX) || static_cast<int64_t>(number) < min ||
      static_cast<int64_t>(number) > max) {
    return Bad(key, " is ", number, "; it must be from ", min, " to ", max);
  }
  return static_cast<int64_t>(number);
}

absl::StatusOr<float> GgufMetadata::Float(std::string_view key, float min, float max,
                                          std::optional<float> default_value) {
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* value, Find(key, !default_value.has_value()));
  if (value == nullptr) return *default_value;
  if (value->type != GgufType::kFloat32) return WrongType(key, value->type, "float32");
  const float number = Load<float>(*value);
  if (!(number >= min && number <= max)) {  // NaN fails too
    return Bad(key, " is ", number, "; it must be from ", min, " to ", max);
  }
  return number;
}

absl::StatusOr<bool> GgufMetadata::Bool(std::string_view key, bool default_value) {
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* value, Find(key, false));
  if (value == nullptr) return default_value;
  if (value->type != GgufType::kBool) return WrongType(key, value->type, "bool");
  return value->payload[0] != 0;
}

absl::StatusOr<std::string_view> GgufMetadata::String(
    std::string_view key, uint64_t max_bytes, std::optional<std::string_view> default_value) {
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* value, Find(key, !default_value.has_value()));
  if (value == nullptr) return *default_value;
  if (value->type != GgufType::kString) return WrongType(key, value->type, "string");
  if (value->payload.size() > max_bytes) {
    return Bad(key, " has ", value->payload.size(), " bytes, more than the limit of ", max_bytes);
  }
  return std::string_view(reinterpret_cast<const char*>(value->payload.data()),
                          value->payload.size());
}

absl::StatusOr<const GgufValue*> GgufMetadata::Array(std::string_view key, GgufType element_type,
                                                     uint64_t min_count, uint64_t max_count) {
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* value, Find(key, true));
  if (value->type != GgufType::kArray) return WrongType(key, value->type, "array");
  if (value->element_type != element_type) {
    return Bad(key, " has elements of type ", GgufTypeName(value->element_type), "; they must be ",
               GgufTypeName(element_type));
  }
  if (value->count < min_count || value->count > max_count) {
    return Bad(key, " has ", value->count, " elements; it must have ", min_count, " to ",
               max_count);
  }
  return value;
}

absl::Status GgufMetadata::CheckAllRead(std::string_view prefix) const {
  for (size_t i = 0; i < read_.size(); ++i) {
    const std::string_view key = file_->metadata[i].key;
    if (!read_[i] && key.starts_with(prefix)) {
      return Bad(key, " is not known here, and ignoring it could change the model's results");
    }
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
