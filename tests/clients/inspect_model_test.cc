// `acuity inspect` on small models: the numbers, worked out by hand, and the errors, word for word
// those of the engine's own way in.
#include "clients/cpp/inspect_model.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "clients/cpp/commands.h"
#include "tests/engine/loader/gguf_builder.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::client {
namespace {

using engine::testing::GgufBuilder;
using engine::testing::ServableLlama;
using engine::testing::TemporaryDirectory;
using testing::HasSubstr;

class InspectModelTest : public ::testing::Test {
 protected:
  std::string Write(const GgufBuilder& builder) {
    directory_.Write("tiny.gguf", builder.Build());
    return directory_ / "tiny.gguf";
  }
  std::string ErrorOf(const GgufBuilder& builder, const std::string& policy = "") {
    const auto model = OpenToInspect(Write(builder), policy);
    return model.ok() ? "no error" : std::string(model.status().message());
  }
  // What InspectModel prints: its exit code, stdout and stderr.
  struct Run {
    int code;
    std::string out, error;
  };
  static Run Inspect(const std::string& path, const std::string& policy, bool json) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = InspectModel(path, policy, json);
    std::string out = testing::internal::GetCapturedStdout();
    return {code, std::move(out), testing::internal::GetCapturedStderr()};
  }

  TemporaryDirectory directory_;
};

// TinyLlama: one layer, 2 heads of 16 on 1, hidden and feed-forward 32, context 64.
TEST_F(InspectModelTest, JsonHasSpecPolicyMemoryAndTensors) {
  const Run run = Inspect(Write(ServableLlama()), "ssmax:s=0.5", true);
  ASSERT_EQ(run.code, 0) << run.error;
  const Json json = Json::parse(run.out);
  EXPECT_EQ(json["architecture"], "llama");
  EXPECT_EQ(json["spec"]["num_layers"], 1);
  EXPECT_EQ(json["spec"]["head_dim"], 16);
  EXPECT_EQ(json["spec"]["vocab_size"], 261);
  EXPECT_EQ(json["layers"], Json::parse(R"([{"layer": 0, "last_layer": 0, "policy": "ssmax:s=0.5",
                                             "window": 0, "rope": 0}])"));
  EXPECT_EQ(json["spec"]["ropes"][0]["rotary_dim"], 16);
  EXPECT_EQ(json["spec"]["norm"], "rms");
  EXPECT_EQ(json["tensors"].size(), 11u);
  EXPECT_THAT(json["tensors"], testing::Contains(Json::parse(R"({
      "name": "blk.0.attn_k.weight", "type": "Q4_1", "shape": [16, 32]})")));
  // Matrices 261 x 32, 2 of 16 x 32 and 5 of 32 x 32; 3 vectors of 32.
  constexpr int kMatrices = 261 * 32 + 2 * 512 + 5 * 1024, kVectors = 3 * 32;
  EXPECT_EQ(json["parameters"], kMatrices + kVectors);
  EXPECT_EQ(json["memory"]["float32"]["weight_bytes"], 4 * (kMatrices + kVectors));
  EXPECT_EQ(json["memory"]["bfloat16"]["weight_bytes"], 2 * kMatrices + 4 * kVectors);
  // K and V of one KV head of 16 numbers, for 16 tokens; a context of 64 tokens.
  EXPECT_EQ(json["memory"]["block_size"], 16);
  EXPECT_EQ(json["memory"]["float32"]["kv_bytes_per_block"], 2 * 16 * 16 * 4);
  EXPECT_EQ(json["memory"]["bfloat16"]["kv_bytes_per_sequence"], 4 * 2 * 16 * 16 * 2);
  EXPECT_EQ(json["memory"]["float8"]["kv_bytes_per_sequence"], 4 * 2 * 16 * 16);
  EXPECT_FALSE(json["memory"]["float8"].contains("weight_bytes"));
}

TEST_F(InspectModelTest, TextSaysTheSame) {
  const Run run = Inspect(Write(ServableLlama()), "", false);
  ASSERT_EQ(run.code, 0) << run.error;
  EXPECT_THAT(run.out, HasSubstr("  layers 0-0: softmax\n"));
  EXPECT_THAT(run.out, HasSubstr("of 16 tokens, "));
  EXPECT_THAT(run.out, HasSubstr("  float8: KV 512 bytes a block"));
  EXPECT_THAT(run.out, HasSubstr("  blk.0.attn_k.weight       Q4_1\t[16,32]\n"));
}

TEST_F(InspectModelTest, RefusesWhatTheEngineRefusesInTheSameWords) {
  GgufBuilder damaged = ServableLlama();
  damaged.SetUint32("llama.block_count", 2);
  GgufBuilder chat = ServableLlama();
  chat.SetString("tokenizer.chat_template", "{% if %}");
  const GgufBuilder bad[] = {damaged, chat};
  for (const GgufBuilder& builder : bad) {
    const auto model = engine::OpenModel(Write(builder), "");
    ASSERT_FALSE(model.ok());
    EXPECT_THAT(std::string(model.status().message()),
                HasSubstr(&builder == &bad[0] ? "blk.1." : "chat template"));
    const Run run = Inspect(directory_ / "tiny.gguf", "", true);
    EXPECT_EQ(run.code, 1);
    EXPECT_EQ(run.out, "");
    EXPECT_EQ(run.error, "acuity: " + std::string(model.status().message()) + "\n");
  }
  EXPECT_THAT(ErrorOf(ServableLlama(), "ssmax:s=x"), HasSubstr("attention policy 'ssmax:s=x'"));
  const Run missing = Inspect(directory_ / "no.gguf", "", false);
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.error, HasSubstr("cannot open "));
}

}  // namespace
}  // namespace acuity::client
