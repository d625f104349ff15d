#include "engine/loader/hf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>

#include "engine/base/limits.h"
#include "engine/loader/rope_scaling.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr float kMinTheta = 1.01f, kMaxTheta = 1e12f;
constexpr float kMinFactor = 1, kMaxFactor = 1e6f;
constexpr float kMaxDivisor = 1e9f;  // of one frequency

absl::StatusOr<int> ReadOriginalContext(const HfConfig& scaling, const ModelSpec& spec) {
  ACUITY_ASSIGN_OR_RETURN(
      const int64_t original,
      scaling.Integer("original_max_position_embeddings", 2, kMaxContextTokens, spec.max_context));
  return static_cast<int>(original);
}

absl::Status ReadLinear(const HfConfig& scaling, RopeSpec* rope) {
  ACUITY_ASSIGN_OR_RETURN(const float factor, scaling.Number("factor", kMinFactor, kMaxFactor));
  std::fill(rope->factors.begin(), rope->factors.end(), factor);
  return absl::OkStatus();
}

// Long waves are stretched by `factor`, short ones are left alone, those between are mixed.
absl::Status ReadLlama3(const HfConfig& scaling, const ModelSpec& spec, RopeSpec* rope) {
  ACUITY_ASSIGN_OR_RETURN(const float factor, scaling.Number("factor", kMinFactor, kMaxFactor));
  ACUITY_ASSIGN_OR_RETURN(const float low, scaling.Number("low_freq_factor", 1e-6f, kMaxFactor));
  ACUITY_ASSIGN_OR_RETURN(const float high, scaling.Number("high_freq_factor", 1e-6f, kMaxFactor));
  if (!(high > low)) {
    return scaling.Bad("high_freq_factor", Concat("it must be above low_freq_factor, ", low));
  }
  ACUITY_ASSIGN_OR_RETURN(const int original, ReadOriginalContext(scaling, spec));
  for (size_t i = 0; i < rope->factors.size(); ++i) {
    const double waves =
        original * RopeFrequency(*rope, i) / (2 * std::numbers::pi);  // in `original`
    const double smooth = std::clamp((waves - low) / (high - low), 0.0, 1.0);
    rope->factors[i] = static_cast<float>(1 / ((1 - smooth) / factor + smooth));
  }
  return absl::OkStatus();
}

absl::Status ReadYarn(const HfConfig& scaling, RopeSpec* rope, ModelSpec* spec) {
  YarnScaling yarn;
  ACUITY_ASSIGN_OR_RETURN(yarn.factor, scaling.Number("factor", kMinFactor, kMaxFactor));
  // transformers takes a 0 in these for an absent key.
  ACUITY_ASSIGN_OR_RETURN(yarn.many_turns, scaling.Number("beta_fast", 1e-6f, kMaxFactor, 32.0f));
  ACUITY_ASSIGN_OR_RETURN(yarn.few_turns, scaling.Number("beta_slow", 1e-6f, kMaxFactor, 1.0f));
  ACUITY_ASSIGN_OR_RETURN(const float m, scaling.Number("mscale", 0, kMaxFactor, 0.0f));
  ACUITY_ASSIGN_OR_RETURN(const float m_all, scaling.Number("mscale_all_dim", 0, kMaxFactor, 0.0f));
  const double magnitude = m != 0 && m_all != 0
                               ? YarnMagnitude(yarn.factor, m) / YarnMagnitude(yarn.factor, m_all)
                               : YarnMagnitude(yarn.factor, 1);
  ACUITY_ASSIGN_OR_RETURN(rope->magnitude, scaling.Number("attention_factor", 1e-6f, kMaxFactor,
                                                          static_cast<float>(magnitude)));
  ACUITY_ASSIGN_OR_RETURN(yarn.truncate, scaling.Bool("truncate", true));
  ACUITY_ASSIGN_OR_RETURN(yarn.original_context, ReadOriginalContext(scaling, *spec));
  ApplyYarn(yarn, rope, &spec->max_context);
  return absl::OkStatus();
}

absl::Status ReadLongRope(const HfConfig& config, const HfConfig& scaling, RopeSpec* rope,
                          ModelSpec* spec) {
  const size_t pairs = rope->factors.size();
  ACUITY_ASSIGN_OR_RETURN(const std::vector<float> longer,
                          scaling.Numbers("long_factor", pairs, 1e-6f, kMaxDivisor));
  ACUITY_ASSIGN_OR_RETURN(const std::vector<float> shorter,
                          scaling.Numbers("short_factor", pairs, 1e-6f, kMaxDivisor));
  // `factor` is what the two contexts make it, whatever the key says.
  ACUITY_RETURN_IF_ERROR(scaling.Number("factor", kMinFactor, kMaxFactor, 1.0f).status());
  constexpr std::string_view kOriginal = "original_max_position_embeddings";
  if (!config.Has(kOriginal) && !scaling.Has(kOriginal)) {
    return config.Bad(kOriginal, "longrope needs it");
  }
  // The one beside max_position_embeddings decides.
  ACUITY_ASSIGN_OR_RETURN(int original, ReadOriginalContext(scaling, *spec));
  if (config.Has(kOriginal)) {
    ACUITY_ASSIGN_OR_RETURN(original, ReadOriginalContext(config, *spec));
  }
  const double magnitude = LongRopeMagnitude(spec->max_context, original);
  ACUITY_ASSIGN_OR_RETURN(rope->magnitude, scaling.Number("attention_factor", 1e-6f, kMaxFactor,
                                                          static_cast<float>(magnitude)));
  rope->factors = spec->max_context > original ? longer : shorter;
  return absl::OkStatus();
}

absl::Status ReadScaling(const HfConfig& config, const HfConfig& scaling, RopeSpec* rope,
                         ModelSpec* spec) {
  scaling.Ignore({"max_position_embeddings"});  // Ministral 3 says it again here
  ACUITY_ASSIGN_OR_RETURN(const std::string older, scaling.String("type", "default"));
  ACUITY_ASSIGN_OR_RETURN(const std::string type, scaling.String("rope_type", older));
  rope->factors.assign(static_cast<size_t>(rope->rotary_dim / 2), 1.0f);
  if (type == "linear") return ReadLinear(scaling, rope);
  if (type == "llama3") return ReadLlama3(scaling, *spec, rope);
  if (type == "yarn") return ReadYarn(scaling, rope, spec);
  // "su" is what the first Phi-3 files call it.
  if (type == "longrope" || type == "su") return ReadLongRope(config, scaling, rope, spec);
  rope->factors.clear();
  if (type == "dynamic") {
    ACUITY_RETURN_IF_ERROR(ReadOriginalContext(scaling, *spec).status());
    return scaling.Number("factor", kMinFactor, kMaxFactor).status();
  }
  if (type == "default") return absl::OkStatus();
  return scaling.Bad(scaling.Has("rope_type") ? "rope_type" : "type",
                     "supported: default, linear, dynamic, yarn, longrope, llama3");
}

}  // namespace

absl::Status ReadRope(const HfConfig& config, const RopeKeys& keys, ModelSpec* spec) {
  RopeSpec rope;
  ACUITY_ASSIGN_OR_RETURN(rope.theta,
                          config.Number(keys.theta, kMinTheta, kMaxTheta, keys.default_theta));
  ACUITY_ASSIGN_OR_RETURN(float partial, config.Number(keys.partial, 0, 1, keys.default_partial));
  std::optional<HfConfig> scaling;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.Has(key)) continue;
    if (scaling.has_value()) return config.Bad(key, "rope_scaling is there, too");
    ACUITY_ASSIGN_OR_RETURN(scaling, config.Object(key));
    ACUITY_ASSIGN_OR_RETURN(rope.theta,
                            scaling->Number("rope_theta", kMinTheta, kMaxTheta, rope.theta));
    ACUITY_ASSIGN_OR_RETURN(partial, scaling->Number("partial_rotary_factor", 0, 1, partial));
  }
  rope.rotary_dim = static_cast<int>(static_cast<float>(spec->head_dim) * partial);
  if (rope.rotary_dim % 2 != 0 || rope.rotary_dim == 0) {
    return config.Bad(keys.partial, Concat("times the head dimension, ", spec->head_dim,
                                           ", it must be an even number from 2"));
  }
  if (scaling.has_value()) {
    ACUITY_RETURN_IF_ERROR(ReadScaling(config, *scaling, &rope, spec));
  }
  spec->ropes.push_back(std::move(rope));
  return absl::OkStatus();
}

}  // namespace acuity::engine
