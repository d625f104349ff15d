#include "engine/loader/hf_config.h"

#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "engine/loader/bounded_json.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {

using Json = nlohmann::json;

namespace {

constexpr size_t kMaxConfigBytes = 4 << 20;
constexpr int kMaxConfigDepth = 8;

// A value as an error shows it.
std::string Shown(const Json& value) {
  constexpr size_t kMaxShown = 80;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

}  // namespace

struct HfConfig::Node {
  Json json;
  std::string path;  // "rope_scaling.", or empty
  std::set<std::string, std::less<>> read;
  std::map<std::string, std::shared_ptr<Node>, std::less<>> objects;  // those that were asked for

  // Null if it is absent. Marks it.
  const Json* Find(std::string_view key) {
    read.emplace(key);
    const auto found = json.find(std::string(key));
    return found == json.end() || found->is_null() ? nullptr : &*found;
  }
};

absl::StatusOr<HfConfig> HfConfig::Parse(std::string_view text) {
  if (text.size() > kMaxConfigBytes) {
    return InvalidArgument("config.json: has ", text.size(), " bytes, more than the limit of ",
                           kMaxConfigBytes);
  }
  absl::StatusOr<Json> json = ParseBoundedJson(text, kMaxConfigDepth);
  if (!json.ok()) return InFile("config.json", json.status());
  if (!json->is_object()) return InvalidArgument("config.json: is not an object");
  auto node = std::make_shared<Node>();
  node->json = *std::move(json);
  return HfConfig(std::move(node));
}

absl::Status HfConfig::Bad(std::string_view key, std::string_view rule) const {
  const auto found = node_->json.find(std::string(key));
  const bool missing = found == node_->json.end() || found->is_null();
  return InvalidArgument("config.json: ", node_->path, key.substr(0, 64),
                         missing ? " is missing" : " is " + Shown(*found), "; ", rule);
}

bool HfConfig::Has(std::string_view key) const {
  const auto found = node_->json.find(std::string(key));
  return found != node_->json.end() && !found->is_null();
}

bool HfConfig::HasKey(std::string_view key) const { return node_->json.contains(std::string(key)); }

absl::StatusOr<int64_t> HfConfig::Integer(std::string_view key, int64_t min, int64_t max,
                                          std::optional<int64_t> absent) const {
  const Json* value = node_->Find(key);
  if (value == nullptr && absent.has_value()) return *absent;
  const std::string rule = Concat("it must be an integer from ", min, " to ", max);
  if (value == nullptr || !value->is_number_integer()) return Bad(key, rule);
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}) {
    return Bad(key, rule);
  }
  const int64_t integer = value->get<int64_t>();
  if (integer < min || integer > max) return Bad(key, rule);
  return integer;
}

absl::StatusOr<float> HfConfig::Number(std::string_view key, float min, float max,
                                       std::optional<float> absent) const {
  const Json* value = node_->Find(key);
  if (value == nullptr && absent.has_value()) return *absent;
  const float number = value != nullptr && value->is_number() ? value->get<float>() : NAN;
  if (!(number >= min && number <= max)) {
    return Bad(key, Concat("it must be a number from ", min, " to ", max));
  }
  return number;
}

absl::StatusOr<bool> HfConfig::Bool(std::string_view key, std::optional<bool> absent) const {
  const Json* value = node_->Find(key);
  if (value == nullptr && absent.has_value()) return *absent;
  if (value == nullptr || !value->is_boolean()) return Bad(key, "it must be true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> HfConfig::String(std::string_view key,
                                             std::optional<std::string> absent) const {
  const Json* value = node_->Find(key);
  if (value == nullptr && absent.has_value()) return *absent;
  if (value == nullptr || !value->is_string()) return Bad(key, "it must be a string");
  return value->get<std::string>();
}

absl::StatusOr<std::vector<float>> HfConfig::Numbers(std::string_view key, size_t count, float min,
                                                     float max) const {
  const Json* value = node_->Find(key);
  const std::string rule = Concat("it must be ", count, " numbers from ", min, " to ", max);
  if (value == nullptr || !value->is_array() || value->size() != count) return Bad(key, rule);
  std::vector<float> numbers;
  for (const Json& item : *value) {
    const float number = item.is_number() ? item.get<float>() : NAN;
    if (!(number >= min && number <= max)) return Bad(key, rule);
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<std::vector<std::string>> HfConfig::Strings(std::string_view key,
                                                           size_t count) const {
  const Json* value = node_->Find(key);
  const std::string rule = Concat("it must be ", count, " strings");
  if (value == nullptr || !value->is_array() || value->size() != count) return Bad(key, rule);
  std::vector<std::string> strings;
  for (const Json& item : *value) {
    if (!item.is_string()) return Bad(key, rule);
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

absl::StatusOr<HfConfig> HfConfig::Object(std::string_view key) const {
  const Json* value = node_->Find(key);
  if (value == nullptr || !value->is_object()) return Bad(key, "it must be an object");
  std::shared_ptr<Node>& node = node_->objects[std::string(key)];
  if (node == nullptr) {
    node = std::make_shared<Node>();
    node->json = *value;
    node->path = Concat(node_->path, key, ".");
  }
  return HfConfig(node);
}

absl::Status HfConfig::MustBeOff(std::string_view key) const {
  const Json* value = node_->Find(key);
  if (value == nullptr || *value == false || *value == 0 || *value == "" ||
      (value->is_structured() && value->empty())) {
    return absl::OkStatus();
  }
  return Bad(key, "it changes what the model computes and is not supported");
}

void HfConfig::Ignore(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) node_->read.emplace(key);
}

absl::Status HfConfig::CheckAllRead() const {
  for (const auto& item : node_->json.items()) {
    if (!item.value().is_null() && !node_->read.contains(item.key())) {
      return Bad(item.key(),
                 "this key is not known for the model's type, so what it changes isn't");
    }
  }
  for (const auto& [key, node] : node_->objects) {
    ACUITY_RETURN_IF_ERROR(HfConfig(node).CheckAllRead());
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
