#include "engine/loader/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/loader/hf_architectures.h"
#include "nlohmann/json.hpp"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ErrorOf(const std::string& json) {
  return std::string(HfConfig::Parse(json).status().message());
}

TEST(HfConfigTest, DamagedFiles) {
  EXPECT_THAT(ErrorOf("{"), HasSubstr("config.json: not valid JSON"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("not an object"));
  EXPECT_THAT(ErrorOf(R"({"a": 1, "a": 2})"), HasSubstr("'a' occurs twice"));
  EXPECT_THAT(ErrorOf(R"({"a": {"b": 1, "b": 2}})"), HasSubstr("'b' occurs twice"));
  EXPECT_THAT(ErrorOf("{\"a\": " + std::string(100000, '[')), HasSubstr("deeper"));
  EXPECT_THAT(ErrorOf(std::string(5 << 20, ' ')), HasSubstr("more than the limit"));
  EXPECT_THAT(ErrorOf("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
}

template <typename T>
std::string Message(const absl::StatusOr<T>& result) {
  return std::string(result.status().message());
}

TEST(HfConfigTest, TypesAndRanges) {
  const auto config = HfConfig::Parse(
      R"({"i": 5, "big": 18446744073709551615, "x": 0.5, "b": true, "s": "text", "n": null,
          "xs": [1, 2.5], "ss": ["a", "b"], "o": {"k": 1}})");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(*config->Integer("i", 1, 5), 5);
  EXPECT_EQ(*config->Integer("n", 1, 5, 3), 3);
  EXPECT_EQ(*config->Integer("absent", 1, 5, 9), 9);
  EXPECT_THAT(Message(config->Integer("i", 1, 4)),
              HasSubstr("config.json: i is 5; it must be an integer from 1 to 4"));
  EXPECT_THAT(Message(config->Integer("big", 1, 4)), HasSubstr("big is 18446744073709551615"));
  EXPECT_THAT(Message(config->Integer("x", 0, 4)), HasSubstr("x is 0.5"));
  EXPECT_THAT(Message(config->Integer("absent", 1, 5)), HasSubstr("absent is missing"));
  EXPECT_THAT(Message(config->Integer("n", 1, 5)), HasSubstr("n is missing"));
  EXPECT_EQ(*config->Number("x", 0, 1), 0.5f);
  EXPECT_EQ(*config->Number("i", 0, 9), 5);
  EXPECT_THAT(Message(config->Number("s", 0, 1)), HasSubstr("s is \"text\"; it must be a number"));
  EXPECT_THAT(Message(config->Number("x", 1, 2)), HasSubstr("from 1 to 2"));
  EXPECT_TRUE(*config->Bool("b"));
  EXPECT_THAT(Message(config->Bool("i")), HasSubstr("true or false"));
  EXPECT_EQ(*config->String("s"), "text");
  EXPECT_THAT(Message(config->String("i")), HasSubstr("a string"));
  EXPECT_THAT(*config->Numbers("xs", 2, 0, 3), ElementsAre(1, 2.5f));
  EXPECT_THAT(Message(config->Numbers("xs", 3, 0, 3)), HasSubstr("it must be 3 numbers"));
  EXPECT_THAT(Message(config->Numbers("xs", 2, 0, 2)), HasSubstr("from 0 to 2"));
  EXPECT_THAT(*config->Strings("ss", 2), ElementsAre("a", "b"));
  EXPECT_THAT(Message(config->Strings("xs", 2)), HasSubstr("2 strings"));
  EXPECT_EQ(*config->Object("o")->Integer("k", 0, 1), 1);
  EXPECT_THAT(Message(config->Object("o")->Integer("k", 2, 3)), HasSubstr("o.k is 1"));
  EXPECT_THAT(Message(config->Object("i")), HasSubstr("an object"));
  EXPECT_TRUE(config->Has("i"));
  EXPECT_FALSE(config->Has("n"));
  EXPECT_TRUE(config->HasKey("n"));
  EXPECT_FALSE(config->HasKey("absent"));
}

TEST(HfConfigTest, EveryKeyMustBeAskedFor) {
  const auto config = HfConfig::Parse(R"({"a": 1, "b": null, "c": {"d": 1}, "e": 2})");
  ASSERT_TRUE(config.ok());
  EXPECT_THAT(std::string(config->CheckAllRead().message()), HasSubstr("a is 1; this key"));
  config->Integer("a", 0, 1).IgnoreError();
  config->Ignore({"e"});
  const auto inner = config->Object("c");
  EXPECT_THAT(std::string(config->CheckAllRead().message()), HasSubstr("c.d is 1"));
  inner->Integer("d", 0, 1).IgnoreError();
  EXPECT_TRUE(config->CheckAllRead().ok());
}

TEST(HfConfigTest, MustBeOff) {
  const auto config = HfConfig::Parse(
      R"({"a": false, "b": 0, "c": "", "d": [], "e": {}, "f": null, "x": true, "y": {"z": 1}})");
  ASSERT_TRUE(config.ok());
  for (const char* key : {"a", "b", "c", "d", "e", "f", "g"}) {
    EXPECT_TRUE(config->MustBeOff(key).ok()) << key;
  }
  EXPECT_THAT(std::string(config->MustBeOff("x").message()), HasSubstr("x is true"));
  EXPECT_THAT(std::string(config->MustBeOff("y").message()), HasSubstr(R"(y is {"z":1})"));
}

// What each reader says of a config.json that `change` was merged into.
absl::StatusOr<ModelSpec> Read(std::string_view model_type, const Json& change) {
  Json json = {{"hidden_size", 64},
               {"num_hidden_layers", 4},
               {"num_attention_heads", 4},
               {"num_key_value_heads", 2},
               {"vocab_size", 100},
               {"intermediate_size", 96},
               {"max_position_embeddings", 512}};
  json.merge_patch(change);
  const auto config = HfConfig::Parse(json.dump());
  ModelSpec spec;
  for (const HfArchitecture& architecture : HfArchitectures()) {
    if (architecture.model_type != model_type) continue;
    absl::Status status = architecture.read(*config, &spec);
    if (status.ok()) status = config->CheckAllRead();
    if (!status.ok()) return status;
  }
  return spec;
}

std::string RefusalOf(const Json& change, std::string_view model_type = "llama") {
  return Message(Read(model_type, change));
}

TEST(HfReadersTest, BadFields) {
  EXPECT_EQ(RefusalOf(Json::object()), "");
  EXPECT_THAT(RefusalOf({{"hidden_size", 70}}), HasSubstr("hidden_size is 70; it must be a mult"));
  EXPECT_THAT(RefusalOf({{"hidden_size", nullptr}}), HasSubstr("hidden_size is missing"));
  EXPECT_THAT(RefusalOf({{"hidden_size", 1 << 20}}), HasSubstr("from 1 to 32768"));
  EXPECT_THAT(RefusalOf({{"num_hidden_layers", 0}}), HasSubstr("num_hidden_layers is 0"));
  EXPECT_THAT(RefusalOf({{"num_key_value_heads", 3}}), HasSubstr("num_key_value_heads is 3"));
  EXPECT_THAT(RefusalOf({{"head_dim", 24}}), HasSubstr("is 24; it must be a multiple of 16"));
  EXPECT_THAT(RefusalOf({{"hidden_act", "relu2"}}), HasSubstr("hidden_act is \"relu2\""));
  EXPECT_THAT(RefusalOf({{"rms_norm_eps", -1}}), HasSubstr("rms_norm_eps is -1"));
  EXPECT_THAT(RefusalOf({{"use_bidirectional_attention", true}}), HasSubstr("not supported"));
  EXPECT_THAT(RefusalOf({{"layer_types", {"full_attention"}}}, "qwen2"), HasSubstr("4 strings"));
  EXPECT_THAT(RefusalOf({{"layer_types", {"a", "b", "c", "d"}}}, "qwen2"),
              HasSubstr("supported: full_attention, sliding_attention"));
  EXPECT_THAT(RefusalOf({{"sliding_window", 8}}), HasSubstr("sliding_window is 8; this key"));
}

Json Rope(Json scaling) { return {{"rope_scaling", std::move(scaling)}}; }

TEST(HfReadersTest, BadRopes) {
  EXPECT_THAT(RefusalOf(Rope({{"rope_type", "xpos"}, {"factor", 2}})),
              HasSubstr("rope_scaling.rope_type is \"xpos\"; supported: default, linear"));
  EXPECT_THAT(RefusalOf(Rope({{"type", "ntk"}})), HasSubstr("rope_scaling.type is \"ntk\""));
  EXPECT_THAT(RefusalOf(Rope({{"rope_type", "linear"}})), HasSubstr("factor is missing"));
  EXPECT_THAT(RefusalOf(Rope({{"rope_type", "linear"}, {"factor", 0}})), HasSubstr("factor is 0"));
  EXPECT_THAT(RefusalOf(Rope({{"rope_type", "linear"}, {"factor", 2}, {"finetuned", true}})),
              HasSubstr("rope_scaling.finetuned is true"));
  EXPECT_THAT(RefusalOf(Rope({{"rope_type", "longrope"}, {"long_factor", {1, 2}}})),
              HasSubstr("long_factor is [1,2]; it must be 8 numbers"));
  const Json eight = {1, 1, 1, 1, 1, 1, 1, 1};
  EXPECT_THAT(
      RefusalOf(Rope({{"rope_type", "longrope"}, {"long_factor", eight}, {"short_factor", eight}})),
      HasSubstr("original_max_position_embeddings is missing; longrope needs it"));
  EXPECT_THAT(RefusalOf(Rope({{"rope_type", "llama3"},
                              {"factor", 8},
                              {"low_freq_factor", 4},
                              {"high_freq_factor", 1}})),
              HasSubstr("high_freq_factor is 1; it must be above"));
  EXPECT_THAT(RefusalOf({{"rope_theta", 0}}), HasSubstr("rope_theta is 0"));
  EXPECT_THAT(RefusalOf({{"partial_rotary_factor", 0.05}}), HasSubstr("partial_rotary_factor"));
  Json both = Rope({{"rope_type", "default"}});
  both["rope_parameters"] = {{"rope_type", "default"}};
  EXPECT_THAT(RefusalOf(both), HasSubstr("rope_scaling is there, too"));
}

TEST(HfReadersTest, RopesAndContexts) {
  EXPECT_EQ(
      Read("llama",
           Rope({{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 512}}))
          ->max_context,
      2048);
  EXPECT_EQ(Read("llama", Rope({{"rope_type", "dynamic"}, {"factor", 4}}))->max_context, 512);
  const Json newer = {
      {"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 500}}}};
  const auto spec = Read("llama", newer);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->ropes[0].theta, 500);
  EXPECT_THAT(spec->ropes[0].factors, testing::Each(2.0f));
}

TEST(HfReadersTest, OnePolicyAtMost) {
  EXPECT_THAT(RefusalOf({{"scalable_softmax", true}, {"use_logn_attn", true}, {"seq_length", 9}}),
              HasSubstr("use_logn_attn is true"));
  EXPECT_THAT(RefusalOf({{"use_logn_attn", true}}), HasSubstr("seq_length is missing"));
  EXPECT_THAT(RefusalOf({{"scalable_softmax", "yes"}}), HasSubstr("scalable_softmax is \"yes\""));
  const auto spec = Read("llama", {{"use_logn_attn", true}, {"seq_length", 256}});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->layers[3].policy.name, "logn:256");
}

}  // namespace
}  // namespace acuity::engine
