#include "engine/loader/json_node.h"

#include <algorithm>

#include "engine/loader/gguf.h"

namespace acuity::engine {

absl::StatusOr<Json> ParseJson(std::string_view bytes, const Json::parser_callback_t& filter) {
  try {
    return Json::parse(bytes.begin(), bytes.end(), filter);
  } catch (const Json::parse_error& error) {
    return InvalidArgument("is not JSON at byte ", error.byte, " of ", bytes.size());
  } catch (const Json::exception& error) {  // a number that no double holds
    return InvalidArgument("is not JSON: ", error.what());
  }
}

std::string JsonNode::PathOf(std::string_view key) const {
  return path_.empty() ? std::string(key) : Concat(path_, ".", key);
}

const Json* JsonNode::Find(std::string_view key) const {
  if (!value_->is_object()) return nullptr;
  const auto it = value_->find(std::string(key));
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

absl::Status JsonNode::WrongType(std::string_view key, const char* wanted) const {
  return InvalidArgument(PathOf(key), " is of type ", Find(key)->type_name(), "; it must be ",
                         wanted);
}

absl::Status JsonNode::Missing(std::string_view key) const {
  return InvalidArgument(PathOf(key), " is missing");
}

bool JsonNode::Has(std::string_view key) const { return Find(key) != nullptr; }

absl::StatusOr<JsonNode> JsonNode::Member(std::string_view key) const {
  const Json* member = Find(key);
  if (member == nullptr) return Missing(key);
  return JsonNode(member, PathOf(key));
}

absl::StatusOr<std::string> JsonNode::String(std::string_view key,
                                             std::optional<std::string_view> default_value) const {
  const Json* member = Find(key);
  if (member == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return std::string(*default_value);
  }
  if (!member->is_string()) return WrongType(key, "string");
  return member->get<std::string>();
}

absl::StatusOr<bool> JsonNode::Bool(std::string_view key, std::optional<bool> default_value) const {
  const Json* member = Find(key);
  if (member == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return *default_value;
  }
  if (!member->is_boolean()) return WrongType(key, "boolean");
  return member->get<bool>();
}

absl::StatusOr<int64_t> JsonNode::Integer(std::string_view key, int64_t min, int64_t max,
                                          std::optional<int64_t> default_value) const {
  const Json* member = Find(key);
  if (member == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return *default_value;
  }
  if (!member->is_number_integer()) return WrongType(key, "integer");
  const bool huge =
      member->is_number_unsigned() && member->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (huge || member->get<int64_t>() < min || member->get<int64_t>() > max) {
    return InvalidArgument(PathOf(key), " is ", member->dump(), "; it must be from ", min, " to ",
                           max);
  }
  return member->get<int64_t>();
}

absl::Status JsonNode::ForEach(std::string_view key,
                               const std::function<absl::Status(const JsonNode&)>& visit) const {
  const Json* member = Find(key);
  if (member == nullptr) return Missing(key);
  if (!member->is_array()) return WrongType(key, "array");
  for (size_t i = 0; i < member->size(); ++i) {
    ACUITY_RETURN_IF_ERROR(visit(JsonNode(&(*member)[i], Concat(PathOf(key), "[", i, "]"))));
  }
  return absl::OkStatus();
}

absl::Status JsonNode::AllowOnly(std::initializer_list<std::string_view> keys) const {
  if (!value_->is_object()) return Error("is of type ", value_->type_name(), "; it must be object");
  for (const auto& [key, value] : value_->items()) {
    if (std::find(keys.begin(), keys.end(), std::string_view(key)) == keys.end()) {
      return Error("has the field ", QuoteForError(key),
                   ", which is not known here; ignoring it could change the tokens");
    }
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
