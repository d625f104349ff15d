#include "engine/loader/policy.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace acuity::engine {
namespace {

using kernels::RowScaleKind;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelSpec TwoLayersOfThreeHeads() {
  ModelSpec spec;
  spec.num_layers = 2;
  spec.num_heads = 3;
  spec.max_context = 8192;
  spec.layers.resize(2);
  return spec;
}

// Applies to a fresh model; the policy of its last layer.
LayerPolicy Applied(const std::string& policy) {
  ModelSpec spec = TwoLayersOfThreeHeads();
  const absl::Status status = ApplyPolicy(policy, &spec);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(spec.layers[0].policy.name, spec.layers[1].policy.name);
  return spec.layers[1].policy;
}

std::string ErrorOf(const std::string& policy) {
  ModelSpec spec = TwoLayersOfThreeHeads();
  const absl::Status status = ApplyPolicy(policy, &spec);
  if (status.ok()) return "no error";
  EXPECT_EQ(spec.layers[0].policy.name, "softmax") << "changed in spite of the error";
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(PolicyTest, Softmax) {
  EXPECT_EQ(Applied("softmax").kind, RowScaleKind::kSoftmax);
  ModelSpec spec = TwoLayersOfThreeHeads();  // also back from another one
  ASSERT_TRUE(ApplyPolicy("logn:512", &spec).ok());
  ASSERT_TRUE(ApplyPolicy("softmax", &spec).ok());
  EXPECT_EQ(spec.layers[0].policy.name, "softmax");
}

TEST(PolicyTest, Ssmax) {
  LayerPolicy policy = Applied("ssmax:s=0.17");
  EXPECT_EQ(policy.kind, RowScaleKind::kSsmax);
  EXPECT_EQ(policy.name, "ssmax:s=0.17");
  EXPECT_THAT(policy.s, ElementsAre(0.17f, 0.17f, 0.17f));
  EXPECT_TRUE(policy.b.empty());
  EXPECT_EQ(policy.view().b, nullptr);
  policy = Applied("ssmax:s=-1e-1,b=0.5");
  EXPECT_EQ(policy.name, "ssmax:s=-0.1,b=0.5");
  EXPECT_THAT(policy.b, ElementsAre(0.5f, 0.5f, 0.5f));
  EXPECT_EQ(Applied("ssmax:b=0.5,s=2").name, "ssmax:s=2,b=0.5");
}

TEST(PolicyTest, SsmaxAutoAveragesToOne) {
  const LayerPolicy policy = Applied("ssmax:auto");
  double mean = 0;
  for (int n = 1; n <= 8192; ++n) {
    mean += static_cast<double>(kernels::RowScale(policy.view(), 2, n, n - 1)) / 8192;
  }
  EXPECT_NEAR(mean, 1.0, 1e-5);
  EXPECT_NEAR(policy.s[0], 0.1248, 1e-4);  // 1 / (lgamma(8193) / 8192)

  ModelSpec spec = TwoLayersOfThreeHeads();
  spec.max_context = 1;  // ln 1 = 0: no such s
  EXPECT_FALSE(ApplyPolicy("ssmax:auto", &spec).ok());
  // A model that was trained to less than its file says.
  const LayerPolicy of_128 = Applied("ssmax:auto:128");
  EXPECT_NEAR(of_128.s[0], 128 / std::lgamma(129.0), 1e-6);
  EXPECT_EQ(of_128.name, "ssmax:s=0.257854");
  EXPECT_EQ(Applied("ssmax:auto:8192").s, policy.s);
  for (const char* length : {"", "1", "0", "-5", "128x", "1e3", "1048577", "99999999999", ",b=1"}) {
    EXPECT_THAT(ErrorOf(std::string("ssmax:auto:") + length),
                HasSubstr("the trained length must be from 2 to 1048576"));
  }
}

TEST(PolicyTest, LogN) {
  const LayerPolicy policy = Applied("logn:2048");
  EXPECT_EQ(policy.kind, RowScaleKind::kLogN);
  EXPECT_EQ(policy.length, 2048.0f);
  EXPECT_EQ(policy.name, "logn:2048");
}

TEST(PolicyTest, Llama4AndMinistral) {
  LayerPolicy policy = Applied("llama4:scale=0.1,floor=8192");
  EXPECT_EQ(policy.kind, RowScaleKind::kLlama4);
  EXPECT_EQ(policy.strength, 0.1f);
  EXPECT_EQ(policy.length, 8192.0f);
  EXPECT_EQ(policy.name, "llama4:scale=0.1,floor=8192");
  policy = Applied("ministral:context=16384,beta=0.1");
  EXPECT_EQ(policy.kind, RowScaleKind::kMinistral);
  EXPECT_EQ(policy.name, "ministral:beta=0.1,context=16384");
}

TEST(PolicyTest, Sharpen) {
  LayerPolicy policy = Applied("sharpen:length=8192,s=0.2,b=0.1");
  EXPECT_EQ(policy.kind, RowScaleKind::kSharpen);
  EXPECT_EQ(policy.length, 8192.0f);
  EXPECT_THAT(policy.s, ElementsAre(0.2f, 0.2f, 0.2f));
  EXPECT_THAT(policy.b, ElementsAre(0.1f, 0.1f, 0.1f));
  EXPECT_EQ(policy.name, "sharpen:length=8192,s=0.2,b=0.1");
  EXPECT_EQ(policy.view().length, 8192.0f);
  EXPECT_EQ(Applied("sharpen:s=0.2,length=64").name, "sharpen:length=64,s=0.2");
}

TEST(PolicyTest, ErrorsQuoteTheTextAndTheGrammar) {
  for (const char* policy : {"",
                             "soft",
                             "softmax ",
                             "SOFTMAX",
                             "ssmax",
                             "ssmax:",
                             "ssmax:s",
                             "ssmax:s=",
                             "ssmax:s=nan",
                             "ssmax:s=inf",
                             "ssmax:s=1e39",
                             "ssmax:s=0.1,",
                             "ssmax:s=0.1,s=0.2",
                             "ssmax:b=1",
                             "ssmax:t=1",
                             "ssmax:s=0.1x",
                             "ssmax:s= 0.1",
                             "ssmax:s=0x1",
                             "ssmax:auto,b=1",
                             "logn",
                             "logn:",
                             "logn:1",
                             "logn:0.5",
                             "logn:-2",
                             "logn:nan",
                             "logn:inf",
                             "llama4:",
                             "llama4:scale=0.1",
                             "llama4:floor=8192",
                             "llama4:scale=0.1,floor=0",
                             "llama4:scale=nan,floor=8",
                             "llama4:beta=0.1,context=8",
                             "ministral:beta=0.1",
                             "ministral:beta=0.1,context=0.5",
                             "ministral:beta=0.1,context=-1",
                             "sharpen:s=0.1",
                             "sharpen:length=8192",
                             "sharpen:length=0,s=0.1"}) {
    EXPECT_THAT(ErrorOf(policy), AllOf(HasSubstr(std::string("'").append(policy).append("'")),
                                       HasSubstr("allowed: softmax | ssmax:s=S")));
  }
  EXPECT_LT(ErrorOf(std::string(100000, 'x')).size(), 1000u);
}

TEST(PolicyTest, ErrorsNameTheParameter) {
  EXPECT_THAT(ErrorOf("ssmax:t=1"), HasSubstr("no parameter 't'"));
  EXPECT_THAT(ErrorOf("ssmax:s=1,s=2"), HasSubstr("'s' is given twice"));
  EXPECT_THAT(ErrorOf("ssmax:b=1"), HasSubstr("'s' is missing"));
  EXPECT_THAT(ErrorOf("llama4:scale=1,floor=0"),
              HasSubstr("'floor' must be a finite number of at least 1"));
}

// The sidecar.

std::string SidecarErrorOf(const std::string& json) {
  ModelSpec spec = TwoLayersOfThreeHeads();
  const absl::Status status = ApplyPolicySidecar(json, &spec);
  if (status.ok()) return "no error";
  EXPECT_EQ(spec.layers[0].policy.name, "softmax") << "changed in spite of the error";
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

std::string Attention(const std::string& members) {
  return R"({"attention": {"policy": "ssmax", )" + members + "}}";
}

TEST(PolicySidecarTest, NumbersLayersAndHeads) {
  ModelSpec spec = TwoLayersOfThreeHeads();
  ASSERT_TRUE(ApplyPolicySidecar(Attention(R"("s": 0.25)"), &spec).ok());
  EXPECT_THAT(spec.layers[1].policy.s, ElementsAre(0.25f, 0.25f, 0.25f));
  EXPECT_EQ(spec.layers[1].policy.name, "ssmax:s=0.25");

  spec = TwoLayersOfThreeHeads();
  ASSERT_TRUE(ApplyPolicySidecar(Attention(R"("s": [1, 2], "b": -0.5)"), &spec).ok());
  EXPECT_THAT(spec.layers[0].policy.s, ElementsAre(1, 1, 1));
  EXPECT_THAT(spec.layers[1].policy.s, ElementsAre(2, 2, 2));
  EXPECT_THAT(spec.layers[1].policy.b, ElementsAre(-0.5f, -0.5f, -0.5f));
  EXPECT_EQ(spec.layers[1].policy.name, "ssmax:s=2,b=-0.5");

  spec = TwoLayersOfThreeHeads();
  ASSERT_TRUE(
      ApplyPolicySidecar(Attention(R"("s": [[1, 2, 3], 4], "b": [[0, 0, 1], 2])"), &spec).ok());
  EXPECT_THAT(spec.layers[0].policy.s, ElementsAre(1, 2, 3));
  EXPECT_THAT(spec.layers[1].policy.s, ElementsAre(4, 4, 4));
  EXPECT_EQ(spec.layers[0].policy.name, "ssmax:s=1..3,b=0..1");
}

// A third layer has a window, a fourth no rotary embedding; the first two share theirs with the
// third.
ModelSpec WithRopes() {
  ModelSpec spec = TwoLayersOfThreeHeads();
  spec.num_layers = 4;
  spec.layers.resize(4);
  spec.layers[2].window = 64;
  spec.layers[3].rope = LayerSpec::kNoRope;
  spec.ropes = {{.theta = 1e4f, .rotary_dim = 4}};
  return spec;
}

TEST(PolicySidecarTest, Sharpen) {
  ModelSpec spec = TwoLayersOfThreeHeads();
  ASSERT_TRUE(
      ApplyPolicySidecar(
          R"({"attention": {"policy": "sharpen", "length": 64, "s": [[0, 1, 2], 3]}})", &spec)
          .ok());
  EXPECT_EQ(spec.layers[0].policy.kind, RowScaleKind::kSharpen);
  EXPECT_EQ(spec.layers[0].policy.name, "sharpen:length=64,s=0..2");
  EXPECT_THAT(spec.layers[1].policy.s, ElementsAre(3, 3, 3));
  EXPECT_EQ(spec.max_context, 8192);
  EXPECT_THAT(SidecarErrorOf(R"({"attention": {"policy": "sharpen", "s": 1}})"),
              HasSubstr("'length' is missing"));
  EXPECT_THAT(SidecarErrorOf(R"({"attention": {"policy": "sharpen", "s": 1, "length": 0}})"),
              HasSubstr("'length' must be a whole number from 1 to 1048576"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": 1, "length": 64)")), HasSubstr("'length' is for"));
}

TEST(PolicySidecarTest, RopeOfTheLayersThatSeeEverything) {
  ModelSpec spec = WithRopes();
  ASSERT_TRUE(
      ApplyPolicySidecar(
          R"({"rope": {"theta": 3e5, "factors": [1, 2], "knee": 8192, "slopes": [1, 0.25]}})",
          &spec)
          .ok());
  ASSERT_EQ(spec.ropes.size(), 2u);
  EXPECT_EQ(spec.ropes[0].theta, 1e4f);
  EXPECT_TRUE(spec.ropes[0].slopes.empty());
  EXPECT_EQ(spec.ropes[1].theta, 3e5f);
  EXPECT_EQ(spec.ropes[1].rotary_dim, 4);
  EXPECT_EQ(spec.ropes[1].knee, 8192);
  EXPECT_THAT(spec.ropes[1].factors, ElementsAre(1, 2));
  EXPECT_THAT(spec.ropes[1].slopes, ElementsAre(1, 0.25f));
  EXPECT_EQ(spec.layers[0].rope, 1);
  EXPECT_EQ(spec.layers[1].rope, 1);
  EXPECT_EQ(spec.layers[2].rope, 0);
  EXPECT_EQ(spec.layers[3].rope, LayerSpec::kNoRope);
  EXPECT_EQ(spec.layers[0].policy.name, "softmax");
}

TEST(PolicySidecarTest, RopeErrors) {
  const auto error = [](const std::string& rope) {
    ModelSpec spec = WithRopes();
    const absl::Status status = ApplyPolicySidecar("{\"rope\": " + rope + "}", &spec);
    EXPECT_EQ(spec.ropes.size(), 1u) << "changed in spite of the error";
    return std::string(status.message());
  };
  EXPECT_THAT(error("1"), HasSubstr("'rope' must be an object"));
  EXPECT_THAT(error(R"({"type": "yarn"})"), HasSubstr("unknown key 'type'"));
  EXPECT_THAT(error(R"({"theta": 1})"), HasSubstr("'theta' is 1; from 1.01"));
  EXPECT_THAT(error(R"({"theta": "x"})"), HasSubstr("'theta' must hold finite"));
  EXPECT_THAT(error(R"({"factors": [1]})"),
              HasSubstr("'factors' has 1 entries, but the model has 2 pairs"));
  EXPECT_THAT(error(R"({"factors": [1, 0]})"), HasSubstr("'factors' is 0; from 1e-06"));
  EXPECT_THAT(error(R"({"knee": 8})"), HasSubstr("go together"));
  EXPECT_THAT(error(R"({"knee": 0, "slopes": [1, 1]})"),
              HasSubstr("'knee' must be a whole number from 1"));
  EXPECT_THAT(error(R"({"knee": 8, "slopes": [1, 1.5]})"), HasSubstr("'slopes' is 1.5; from 0"));
  EXPECT_THAT(error(R"({"knee": 8, "slopes": 1})"), HasSubstr("must be an array"));
  ModelSpec none = WithRopes();
  for (LayerSpec& layer : none.layers) layer.rope = LayerSpec::kNoRope;
  EXPECT_THAT(std::string(ApplyPolicySidecar(R"({"rope": {"theta": 3e5}})", &none).message()),
              HasSubstr("no layer"));
}

TEST(PolicySidecarTest, Context) {
  ModelSpec spec = TwoLayersOfThreeHeads();
  ASSERT_TRUE(ApplyPolicySidecar(R"({"context": 16384})", &spec).ok());
  EXPECT_EQ(spec.max_context, 16384);
  for (const char* context :
       {"8191", "1048577", "-1", "4294975488", "9000.5", "\"9000\"", "null"}) {
    EXPECT_THAT(SidecarErrorOf(std::string("{\"context\": ") + context + "}"),
                HasSubstr("'context' must be a whole number from 8192 to 1048576"));
  }
  spec = TwoLayersOfThreeHeads();
  spec.learned_positions = true;
  EXPECT_TRUE(ApplyPolicySidecar(R"({"context": 8192})", &spec).ok());
  EXPECT_THAT(std::string(ApplyPolicySidecar(R"({"context": 8193})", &spec).message()),
              HasSubstr("learned positions, 8192 of them"));
}

TEST(PolicySidecarTest, NotJson) {
  for (const char* json : {"", "{", "nonsense", "{\"attention\": }", "\xff\xfe", "{} {}",
                           "{\"attention\": {\"policy\": \"ssmax\", \"s\": 1e999}}",
                           "{\"attention\": {\"policy\": \"ssmax\", \"s\": NaN}}"}) {
    EXPECT_THAT(SidecarErrorOf(json), HasSubstr("not valid JSON")) << json;
  }
}

TEST(PolicySidecarTest, KeysUnknownMissingOrTwice) {
  EXPECT_THAT(SidecarErrorOf("[]"), HasSubstr("must be an object"));
  EXPECT_THAT(SidecarErrorOf("1"), HasSubstr("must be an object"));
  EXPECT_THAT(SidecarErrorOf("{}"),
              HasSubstr("none of 'attention', 'rope' and 'context' is there"));
  EXPECT_THAT(SidecarErrorOf(R"({"attention": 1})"), HasSubstr("'attention' must be an object"));
  EXPECT_THAT(SidecarErrorOf(R"({"Attention": {}})"), HasSubstr("unknown key 'Attention'"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": 1, "x": 1)")), HasSubstr("unknown key 'x'"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("b": 1)")), HasSubstr("'s' is missing"));
  EXPECT_THAT(SidecarErrorOf(R"({"attention": {"s": 1}})"), HasSubstr("'policy' must be"));
  EXPECT_THAT(SidecarErrorOf(R"({"attention": {"policy": "logn", "s": 1}})"),
              HasSubstr("'policy' must be"));
  EXPECT_THAT(SidecarErrorOf(R"({"attention": {"policy": 1, "s": 1}})"),
              HasSubstr("'policy' must be"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": 1, "s": 2)")), HasSubstr("'s' occurs twice"));
  EXPECT_THAT(SidecarErrorOf(R"({"attention": {"policy": "ssmax", "s": 1}, "attention": {}})"),
              HasSubstr("'attention' occurs twice"));
}

TEST(PolicySidecarTest, WrongLengths) {
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": [1])")),
              HasSubstr("'s' has 1 entries, but the model has 2 layers"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": [])")), HasSubstr("0 entries"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": 1, "b": [1, 2, 3])")),
              HasSubstr("'b' has 3 entries, but the model has 2 layers"));
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": [1, [1, 2]])")),
              HasSubstr("'s' has 2 entries, but the model has 3 heads"));
}

TEST(PolicySidecarTest, NotFiniteNumbers) {
  for (const char* s : {"1e39", "-1e39", "null", "true", "\"1\"", "{}", "[1, 1e39]", "[1, null]",
                        "[1, [1, 2, \"3\"]]", "[1, [1, 2, 1e39]]", "[1, {}]"}) {
    EXPECT_THAT(SidecarErrorOf(Attention(std::string("\"s\": ") + s)),
                HasSubstr("'s' must hold finite"))
        << s;
  }
}

TEST(PolicySidecarTest, DepthAndSizeAreBounded) {
  EXPECT_THAT(SidecarErrorOf(Attention(R"("s": [1, [1, 2, [3]]])")), HasSubstr("deeper"));
  EXPECT_THAT(SidecarErrorOf(std::string(1 << 20, '[')), HasSubstr("deeper"));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_THAT(SidecarErrorOf(objects), HasSubstr("deeper"));
  EXPECT_THAT(SidecarErrorOf(std::string((4 << 20) + 1, ' ')), HasSubstr("4194304"));
}

TEST(PolicySidecarTest, FromAFile) {
  std::string folder = ::testing::TempDir() + "/policy_XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/ssmax.json";
  std::ofstream(path) << Attention(R"("s": 0.5)");
  EXPECT_EQ(Applied("file:" + path).name, "ssmax:s=0.5");
  std::ofstream(path) << "{";
  EXPECT_THAT(ErrorOf("file:" + path), HasSubstr("ssmax.json: attention sidecar"));
  EXPECT_THAT(ErrorOf("file:" + folder), HasSubstr("a directory"));
  ModelSpec spec = TwoLayersOfThreeHeads();
  EXPECT_EQ(ApplyPolicy("file:" + folder + "/none", &spec).code(), absl::StatusCode::kNotFound);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace acuity::engine
