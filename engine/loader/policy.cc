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
#include "engine/base/limits.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

using kernels::RowScaleKind;

constexpr std::string_view kGrammar =
    "softmax | ssmax:s=S[,b=B] | ssmax:auto[:L] | logn:L | llama4:scale=A,floor=F | "
    "ministral:beta=A,context=C | sharpen:length=L,s=S[,b=B] | file:PATH";

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

std::optional<int> Whole(std::string_view text) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
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

// s such that s ln n is 1 on average over n = 1..length.
absl::StatusOr<LayerPolicy> SsmaxAuto(std::string_view policy, int length, const ModelSpec& spec) {
  if (length < 2 || length > kMaxContextTokens) {
    return BadPolicy(policy, Concat("the trained length must be from 2 to ", kMaxContextTokens));
  }
  double sum = 0;
  for (int n = 2; n <= length; ++n) sum += std::log(static_cast<double>(n));
  const float s = static_cast<float>(length / sum);
  return PerHeadPolicy(RowScaleKind::kSsmax, 1,
                       std::vector<float>(static_cast<size_t>(spec.num_heads), s), {});
}

absl::StatusOr<LayerPolicy> ParseSsmax(std::string_view policy, std::string_view text,
                                       const ModelSpec& spec) {
  if (text == "auto") return SsmaxAuto(policy, spec.max_context, spec);
  if (ConsumePrefix("auto:", &text)) {
    return SsmaxAuto(policy, Whole(text).value_or(0), spec);
  }
  std::array<Parameter, 2> parameters = {{{"s", true, -HUGE_VALF}, {"b", false, -HUGE_VALF}}};
  ACUITY_RETURN_IF_ERROR(ReadParameters(policy, text, parameters));
  const size_t heads = static_cast<size_t>(spec.num_heads);
  return PerHeadPolicy(RowScaleKind::kSsmax, 1, std::vector<float>(heads, parameters[0].value),
                       parameters[1].present ? std::vector<float>(heads, parameters[1].value)
                                             : std::vector<float>());
}

absl::StatusOr<LayerPolicy> ParseSharpen(std::string_view policy, std::string_view text,
                                         const ModelSpec& spec) {
  std::array<Parameter, 3> parameters = {
      {{"length", true, 1}, {"s", true, -HUGE_VALF}, {"b", false, -HUGE_VALF}}};
  ACUITY_RETURN_IF_ERROR(ReadParameters(policy, text, parameters));
  const size_t heads = static_cast<size_t>(spec.num_heads);
  return PerHeadPolicy(RowScaleKind::kSharpen, parameters[0].value,
                       std::vector<float>(heads, parameters[1].value),
                       parameters[2].present ? std::vector<float>(heads, parameters[2].value)
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
LayerPolicy StrengthAndLength(RowScaleKind kind, std::string_view family, std::string_view strength,
                              float strength_value, std::string_view length, float length_value) {
  LayerPolicy layer;
  layer.kind = kind;
  layer.strength = strength_value;
  layer.length = length_value;
  layer.name = Concat(family, ":", strength, "=", strength_value, ",", length, "=", length_value);
  return layer;
}

absl::StatusOr<LayerPolicy> ParseStrengthAndLength(std::string_view policy, std::string_view text,
                                                   RowScaleKind kind, std::string_view family,
                                                   std::string_view strength,
                                                   std::string_view length) {
  std::array<Parameter, 2> parameters = {{{strength, true, -HUGE_VALF}, {length, true, 1}}};
  ACUITY_RETURN_IF_ERROR(ReadParameters(policy, text, parameters));
  return StrengthAndLength(kind, family, strength, parameters[0].value, length,
                           parameters[1].value);
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
  if (ConsumePrefix("sharpen:", &rest)) return ParseSharpen(policy, rest, spec);
  return BadPolicy(policy, "no such policy");
}

}  // namespace

LayerPolicy PerHeadPolicy(RowScaleKind kind, float length, std::vector<float> s,
                          std::vector<float> b) {
  LayerPolicy layer;
  layer.kind = kind;
  layer.length = length;
  layer.name = kind == RowScaleKind::kSharpen ? Concat("sharpen:length=", length, ",") : "ssmax:";
  layer.name += RangeText("s", s);
  if (!b.empty()) layer.name += Concat(",", RangeText("b", b));
  layer.s = std::move(s);
  layer.b = std::move(b);
  return layer;
}

LayerPolicy MinistralPolicy(float beta, float context) {
  return StrengthAndLength(RowScaleKind::kMinistral, "ministral", "beta", beta, "context", context);
}

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

}  // namespace acuity::engine
