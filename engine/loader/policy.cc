#include "engine/loader/policy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/bounded_json.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

using kernels::RowScaleKind;
using Json = nlohmann::json;

constexpr std::string_view kGrammar =
    "softmax | ssmax:s=S[,b=B] | ssmax:auto | logn:L | llama4:scale=A,floor=F | "
    "ministral:beta=A,context=C | file:PATH";
// 1024 layers of 128 heads, two parameters of 16 characters.
constexpr uint64_t kMaxSidecarBytes = 4 << 20;
// {"attention": {"s": [[0.1]]}} is 4 deep.
constexpr int kMaxSidecarDepth = 4;

absl::Status BadPolicy(std::string_view policy, std::string_view reason) {
  constexpr size_t kMaxShown = 200;
  return InvalidArgument("attention policy '", policy.substr(0, kMaxShown), "': ", reason,
                         "; allowed: ", kGrammar);
}

std::optional<float> FiniteFloat(std::string_view text) {
  float value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Cuts and returns what lies before `separator`; *found tells whether there is one, and thus a
// rest.
std::string_view CutAt(char separator, std::string_view* text, bool* found) {
  const size_t at = text->find(separator);
  *found = at != std::string_view::npos;
  const std::string_view head = text->substr(0, at);
  text->remove_prefix(*found ? at + 1 : text->size());
  return head;
}

bool ConsumePrefix(std::string_view prefix, std::string_view* text) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// One NAME=NUMBER of a policy.
struct Parameter {
  std::string_view name;
  bool required;
  float min;  // inclusive; every number is finite besides
  float value = 0;
  bool present = false;
};

// Fills `parameters` from "name=number,name=number". The error names the parameter.
absl::Status ReadParameters(std::string_view policy, std::string_view text,
                            std::span<Parameter> parameters) {
  for (bool more = true; more;) {
    const std::string_view item = CutAt(',', &text, &more);
    bool has_value = false;
    std::string_view number = item;
    const std::string_view name = CutAt('=', &number, &has_value);
    const auto parameter = std::find_if(parameters.begin(), parameters.end(),
                                        [name](const Parameter& p) { return p.name == name; });
    if (parameter == parameters.end()) {
      return BadPolicy(policy, Concat("no parameter '", name.substr(0, 32), "'"));
    }
    if (parameter->present) {
      return BadPolicy(policy, Concat("'", parameter->name, "' is given twice"));
    }
    const std::optional<float> value = has_value ? FiniteFloat(number) : std::nullopt;
    if (!value.has_value() || *value < parameter->min) {
      return BadPolicy(
          policy, Concat("'", parameter->name, "' must be a finite number",
                         parameter->min > -HUGE_VALF ? " of at least " : "",
                         parameter->min > -HUGE_VALF ? Concat(parameter->min) : std::string()));
    }
    parameter->value = *value;
    parameter->present = true;
  }
  for (const Parameter& parameter : parameters) {
    if (parameter.required && !parameter.present) {
      return BadPolicy(policy, Concat("'", parameter.name, "' is missing"));
    }
  }
  return absl::OkStatus();
}

// "s=0.17" or, over a layer whose heads differ, "s=0.1..0.3".
std::string RangeText(std::string_view name, const std::vector<float>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*low == *high) return Concat(name, "=", *low);
  return Concat(name, "=", *low, "..", *high);
}

LayerPolicy Ssmax(std::vector<float> s, std::vector<float> b) {
  LayerPolicy layer;
  layer.kind = RowScaleKind::kSsmax;
  layer.name = Concat("ssmax:", RangeText("s", s));
  if (!b.empty()) layer.name += Concat(",", RangeText("b", b));
  layer.s = std::move(s);
  layer.b = std::move(b);
  return layer;
}

// s such that s ln n is 1 on average over n = 1..max_context.
absl::StatusOr<LayerPolicy> SsmaxAuto(std::string_view policy, const ModelSpec& spec) {
  if (spec.max_context < 2) return BadPolicy(policy, "the trained length must be at least 2");
  double sum = 0;
  for (int n = 2; n <= spec.max_context; ++n) sum += std::log(static_cast<double>(n));
  const float s = static_cast<float>(spec.max_context / sum);
  return Ssmax(std::vector<float>(static_cast<size_t>(spec.num_heads), s), {});
}

absl::StatusOr<LayerPolicy> ParseSsmax(std::string_view policy, std::string_view text,
                                       const ModelSpec& spec) {
  if (text == "auto") return SsmaxAuto(policy, spec);
  std::array<Parameter, 2> parameters = {{{"s", true, -HUGE_VALF}, {"b", false, -HUGE_VALF}}};
  ACUITY_RETURN_IF_ERROR(ReadParameters(policy, text, parameters));
  const size_t heads = static_cast<size_t>(spec.num_heads);
  return Ssmax(std::vector<float>(heads, parameters[0].value),
               parameters[1].present ? std::vector<float>(heads, parameters[1].value)
                                     : std::vector<float>());
}

absl::StatusOr<LayerPolicy> ParseLogN(std::string_view policy, std::string_view text) {
  const std::optional<float> length = FiniteFloat(text);
  if (!length.has_value() || !(*length > 1)) {
    return BadPolicy(policy, "L must be a finite number greater than 1");
  }
  LayerPolicy layer;
  layer.kind = RowScaleKind::kLogN;
  layer.length = *length;
  layer.name = Concat("logn:", *length);
  return layer;
}

// The two policies of a strength and a length, whose names differ.
absl::StatusOr<LayerPolicy> ParseStrengthAndLength(std::string_view policy, std::string_view text,
                                                   RowScaleKind kind, std::string_view family,
                                                   std::string_view strength,
                                                   std::string_view length) {
  std::array<Parameter, 2> parameters = {{{strength, true, -HUGE_VALF}, {length, true, 1}}};
  ACUITY_RETURN_IF_ERROR(ReadParameters(policy, text, parameters));
  LayerPolicy layer;
  layer.kind = kind;
  layer.strength = parameters[0].value;
  layer.length = parameters[1].value;
  layer.name = Concat(family, ":", strength, "=", layer.strength, ",", length, "=", layer.length);
  return layer;
}

absl::StatusOr<LayerPolicy> ParsePolicy(std::string_view policy, const ModelSpec& spec) {
  if (policy == "softmax") return LayerPolicy();
  std::string_view rest = policy;
  if (ConsumePrefix("ssmax:", &rest)) return ParseSsmax(policy, rest, spec);
  if (ConsumePrefix("logn:", &rest)) return ParseLogN(policy, rest);
  if (ConsumePrefix("llama4:", &rest)) {
    return ParseStrengthAndLength(policy, rest, RowScaleKind::kLlama4, "llama4", "scale", "floor");
  }
  if (ConsumePrefix("ministral:", &rest)) {
    return ParseStrengthAndLength(policy, rest, RowScaleKind::kMinistral, "ministral", "beta",
                                  "context");
  }
  return BadPolicy(policy, "no such policy");
}

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

}  // namespace

absl::Status ApplyPolicy(std::string_view policy, ModelSpec* spec) {
  std::string_view path = policy;
  if (ConsumePrefix("file:", &path)) {
    ACUITY_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                            MappedFile::Open(std::string(path), kMaxSidecarBytes));
    const absl::Status status = ApplyPolicySidecar(
        {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}, spec);
    return status.ok() ? status : InFile(std::string(path), status);
  }
  ACUITY_ASSIGN_OR_RETURN(const LayerPolicy parsed, ParsePolicy(policy, *spec));
  for (LayerSpec& layer : spec->layers) layer.policy = parsed;
  return absl::OkStatus();
}

absl::Status ApplyPolicySidecar(std::string_view text, ModelSpec* spec) {
  if (text.size() > kMaxSidecarBytes) {
    return BadSidecar(
        Concat("has ", text.size(), " bytes, more than the limit of ", kMaxSidecarBytes));
  }
  ACUITY_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  ACUITY_RETURN_IF_ERROR(CheckKeys("the file", json, {"attention"}));
  if (!json.contains("attention")) return BadSidecar("key 'attention' is missing");
  const Json& attention = json["attention"];
  ACUITY_RETURN_IF_ERROR(CheckKeys("'attention'", attention, {"policy", "s", "b"}));
  if (!attention.contains("policy") || attention["policy"] != "ssmax") {
    return BadSidecar("'policy' must be \"ssmax\"");
  }
  if (!attention.contains("s")) return BadSidecar("key 's' is missing");
  ACUITY_ASSIGN_OR_RETURN(std::vector<std::vector<float>> s,
                          ReadHeadValues("s", attention["s"], *spec));
  std::vector<std::vector<float>> b(spec->layers.size());
  if (attention.contains("b")) {
    ACUITY_ASSIGN_OR_RETURN(b, ReadHeadValues("b", attention["b"], *spec));
  }
  for (size_t i = 0; i < spec->layers.size(); ++i) {
    spec->layers[i].policy = Ssmax(std::move(s[i]), std::move(b[i]));
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
