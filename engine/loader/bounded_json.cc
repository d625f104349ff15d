#include "engine/loader/bounded_json.h"

#include <set>
#include <vector>

#include "engine/loader/status_util.h"

namespace acuity::engine {

using Json = nlohmann::json;

absl::StatusOr<Json> ParseBoundedJson(std::string_view text, int max_depth) {
  bool too_deep = false;
  std::string twice;
  std::vector<std::set<std::string>> keys(1);  // of the objects that are open, by depth
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      keys.resize(static_cast<size_t>(depth) + 1);
      keys.emplace_back();
    } else if (event == Json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && twice.empty()) twice = key;
    } else if (event == Json::parse_event_t::object_end) {
      keys.resize(static_cast<size_t>(depth) + 1);
    }
    if (depth > max_depth) too_deep = true;
    return !too_deep;
  };
  Json json = Json::parse(text, watch, /*allow_exceptions=*/false);
  if (too_deep) return InvalidArgument("nested deeper than the limit of ", max_depth);
  if (json.is_discarded()) return InvalidArgument("not valid JSON");
  if (!twice.empty()) return InvalidArgument("key '", twice.substr(0, 64), "' occurs twice");
  return json;
}

}  // namespace acuity::engine
