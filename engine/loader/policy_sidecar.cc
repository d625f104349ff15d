// The sidecar file of policy.h.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/limits.h"
#include "engine/loader/bounded_json.h"
#include "engine/loader/policy.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

using kernels::RowScaleKind;
using Json = nlohmann::json;

// {"attention": {"s": [[0.1]]}} is 4 deep.
constexpr int kMaxSidecarDepth = 4;
constexpr float kMinTheta = 1.01f, kMaxTheta = 1e12f, kMaxFactor = 1e6f;

absl::Status BadSidecar(std::string_view reason) {
  return InvalidArgument("attention sidecar: ", reason);
}

absl::StatusOr<Json> ParseJson(std::string_view text) {
  absl::StatusOr<Json> json = ParseBoundedJson(text, kMaxSidecarDepth);
  if (!json.ok())
    return BadSidecar({json.status().message().data(), json.status().message().size()});
  return json;
}

absl::StatusOr<float> ReadNumber(std::string_view key, const Json& json) {
  const float value = json.is_number() ? json.get<float>() : HUGE_VALF;
  if (!std::isfinite(value)) {
    return BadSidecar(Concat("'", key, "' must hold finite float32 numbers only"));
  }
  return value;
}

absl::Status CheckLength(std::string_view key, size_t length, size_t wanted,
                         std::string_view unit) {
  if (length == wanted) return absl::OkStatus();
  return BadSidecar(
      Concat("'", key, "' has ", length, " entries, but the model has ", wanted, " ", unit));
}

// A number, [layers] or [layers][heads] -> [layers][heads].
absl::StatusOr<std::vector<std::vector<float>>> ReadHeadValues(std::string_view key,
                                                               const Json& json,
                                                               const ModelSpec& spec) {
  const size_t heads = static_cast<size_t>(spec.num_heads);
  if (!json.is_array()) {
    ACUITY_ASSIGN_OR_RETURN(const float value, ReadNumber(key, json));
    return std::vector<std::vector<float>>(spec.layers.size(), std::vector<float>(heads, value));
  }
  ACUITY_RETURN_IF_ERROR(CheckLength(key, json.size(), spec.layers.size(), "layers"));
  std::vector<std::vector<float>> values;
  values.reserve(spec.layers.size());
  for (const Json& layer : json) {
    if (!layer.is_array()) {
      ACUITY_ASSIGN_OR_RETURN(const float value, ReadNumber(key, layer));
      values.emplace_back(heads, value);
      continue;
    }
    ACUITY_RETURN_IF_ERROR(CheckLength(key, layer.size(), heads, "heads"));
    std::vector<float>& row = values.emplace_back();
    for (const Json& head : layer) {
      ACUITY_ASSIGN_OR_RETURN(const float value, ReadNumber(key, head));
      row.push_back(value);
    }
  }
  return values;
}

absl::Status CheckKeys(std::string_view where, const Json& object,
                       std::initializer_list<std::string_view> allowed) {
  if (!object.is_object()) return BadSidecar(Concat(where, " must be an object"));
  for (const auto& item : object.items()) {
    if (std::find(allowed.begin(), allowed.end(), item.key()) == allowed.end()) {
      return BadSidecar(Concat("unknown key '", item.key().substr(0, 64), "' in ", where));
    }
  }
  return absl::OkStatus();
}

// `object[key]`, from `low` to `high`.
absl::StatusOr<float> ReadWithin(std::string_view key, const Json& json, float low, float high) {
  ACUITY_ASSIGN_OR_RETURN(const float value, ReadNumber(key, json));
  if (value < low || value > high) {
    return BadSidecar(Concat("'", key, "' is ", value, "; from ", low, " to ", high));
  }
  return value;
}

absl::StatusOr<int> ReadWhole(std::string_view key, const Json& json, int low, int high) {
  if (!json.is_number_integer() || json < low || json > high) {
    return BadSidecar(Concat("'", key, "' must be a whole number from ", low, " to ", high));
  }
  return json.get<int>();
}

absl::StatusOr<std::vector<float>> ReadPairs(std::string_view key, const Json& json, size_t pairs,
                                             float low, float high) {
  if (!json.is_array()) return BadSidecar(Concat("'", key, "' must be an array of numbers"));
  ACUITY_RETURN_IF_ERROR(CheckLength(key, json.size(), pairs, "pairs of rotary elements"));
  std::vector<float> values;
  for (const Json& item : json) {
    ACUITY_ASSIGN_OR_RETURN(const float value, ReadWithin(key, item, low, high));
    values.push_back(value);
  }
  return values;
}

// `json` over what the checkpoint's rotary embedding is.
absl::StatusOr<RopeSpec> ReadRope(const Json& json, RopeSpec rope) {
  const size_t pairs = static_cast<size_t>(rope.rotary_dim / 2);
  if (json.contains("theta")) {
    ACUITY_ASSIGN_OR_RETURN(rope.theta, ReadWithin("theta", json["theta"], kMinTheta, kMaxTheta));
  }
  if (json.contains("factors")) {
    ACUITY_ASSIGN_OR_RETURN(
        rope.factors, ReadPairs("factors", json["factors"], pairs, 1 / kMaxFactor, kMaxFactor));
  }
  if (json.contains("knee") != json.contains("slopes")) {
    return BadSidecar("'knee' and 'slopes' go together");
  }
  if (json.contains("knee")) {
    ACUITY_ASSIGN_OR_RETURN(rope.knee, ReadWhole("knee", json["knee"], 1, kMaxContextTokens));
    ACUITY_ASSIGN_OR_RETURN(rope.slopes, ReadPairs("slopes", json["slopes"], pairs, 0, 1));
  }
  return rope;
}

// Changes the rotary embeddings of the layers that attend to everything; those with a window keep
// theirs.
absl::Status ApplyRope(const Json& json, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(CheckKeys("'rope'", json, {"theta", "factors", "knee", "slopes"}));
  std::vector<int> changed(spec->ropes.size(), -1);  // where the changed copy is
  for (LayerSpec& layer : spec->layers) {
    if (layer.window > 0 || layer.rope == LayerSpec::kNoRope) continue;
    int& copy = changed[static_cast<size_t>(layer.rope)];
    if (copy < 0) {
      ACUITY_ASSIGN_OR_RETURN(RopeSpec rope,
                              ReadRope(json, spec->ropes[static_cast<size_t>(layer.rope)]));
      copy = static_cast<int>(spec->ropes.size());
      spec->ropes.push_back(std::move(rope));
    }
    layer.rope = copy;
  }
  if (changed.size() == spec->ropes.size()) {
    return BadSidecar("'rope': no layer with full attention has a rotary embedding");
  }
  return absl::OkStatus();
}

absl::Status ApplyContext(const Json& json, ModelSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(const int context,
                          ReadWhole("context", json, spec->max_context, kMaxContextTokens));
  if (spec->learned_positions && context > spec->max_context) {
    return BadSidecar(Concat("'context' is ", context, ", but the model has learned positions, ",
                             spec->max_context, " of them"));
  }
  spec->max_context = context;
  return absl::OkStatus();
}

absl::Status ApplyAttention(const Json& json, ModelSpec* spec) {
  ACUITY_RETURN_IF_ERROR(CheckKeys("'attention'", json, {"policy", "length", "s", "b"}));
  const bool sharpen = json.contains("policy") && json["policy"] == "sharpen";
  if (!sharpen && (!json.contains("policy") || json["policy"] != "ssmax")) {
    return BadSidecar("'policy' must be \"ssmax\" or \"sharpen\"");
  }
  if (sharpen != json.contains("length")) {
    return BadSidecar(sharpen ? "key 'length' is missing" : "'length' is for \"sharpen\" only");
  }
  float length = 1;
  if (sharpen) {
    ACUITY_ASSIGN_OR_RETURN(const int whole,
                            ReadWhole("length", json["length"], 1, kMaxContextTokens));
    length = static_cast<float>(whole);
  }
  if (!json.contains("s")) return BadSidecar("key 's' is missing");
  ACUITY_ASSIGN_OR_RETURN(std::vector<std::vector<float>> s, ReadHeadValues("s", json["s"], *spec));
  std::vector<std::vector<float>> b(spec->layers.size());
  if (json.contains("b")) {
    ACUITY_ASSIGN_OR_RETURN(b, ReadHeadValues("b", json["b"], *spec));
  }
  const RowScaleKind kind = sharpen ? RowScaleKind::kSharpen : RowScaleKind::kSsmax;
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    spec->layers[i].policy = PerHeadPolicy(kind, length, std::move(s[i]), std::move(b[i]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyPolicySidecar(std::string_view text, ModelSpec* spec) {
  if (text.size() > kMaxSidecarBytes) {
    return BadSidecar(
        Concat("has ", text.size(), " bytes, more than the limit of ", kMaxSidecarBytes));
  }
  ACUITY_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  ACUITY_RETURN_IF_ERROR(CheckKeys("the file", json, {"attention", "context", "rope"}));
  if (json.empty()) return BadSidecar("none of 'attention', 'rope' and 'context' is there");
  ModelSpec changed = *spec;
  if (json.contains("context")) {
    ACUITY_RETURN_IF_ERROR(ApplyContext(json["context"], &changed));
  }
  if (json.contains("rope")) ACUITY_RETURN_IF_ERROR(ApplyRope(json["rope"], &changed));
  if (json.contains("attention")) {
    ACUITY_RETURN_IF_ERROR(ApplyAttention(json["attention"], &changed));
  }
  *spec = std::move(changed);
  return absl::OkStatus();
}

}  // namespace acuity::engine
