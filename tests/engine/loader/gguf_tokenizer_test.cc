// The tokenizers of GGUF files: which are refused and why. What is read is compared with other
// implementations in tests/parity.
#include "engine/loader/gguf_tokenizer.h"

#include <string>
#include <utility>

#include "engine/loader/gguf_checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/gguf_builder.h"
#include "tests/engine/loader/gguf_errors.h"

namespace acuity::engine {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using testing::Says;
using testing::TinyLlama;

absl::StatusOr<TokenizerSpec> Read(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const absl::StatusOr<GgufFile> file = ParseGguf(bytes);
  if (!file.ok()) return file.status();
  GgufMetadata metadata(&*file);
  return ReadTokenizerSpec(&metadata);
}

std::string ErrorOf(const GgufBuilder& builder) {
  const auto spec = Read(builder);
  return spec.ok() ? "no error" : std::string(spec.status().message());
}

TEST(GgufTokenizerTest, MergesNameTokens) {
  GgufBuilder b = TinyLlama();
  const std::pair<const char*, const char*> merges[] = {{"ab", "no space"},
                                                        {" a", "no space"},
                                                        {"zz a", "'zz' is not a token"},
                                                        {"a ", "'' is not a token"},
                                                        {"a a a", "'a a' is not a token"}};
  for (const auto& [merge, error] : merges) {
    b.SetStrings("tokenizer.ggml.merges", {merge});
    EXPECT_THAT(ErrorOf(b), Says("element 0 of tokenizer.ggml.merges", error));
  }
}

TEST(GgufTokenizerTest, OtherModels) {
  GgufBuilder b = TinyLlama();
  b.SetString("tokenizer.ggml.pre", "default");
  EXPECT_THAT(ErrorOf(b), Says("tokenizer.ggml.pre", "'default'", "supported: gpt-2"));
  b.SetString("tokenizer.ggml.model", "bert");
  EXPECT_THAT(ErrorOf(b), Says("tokenizer.ggml.model", "'bert'", "gpt2, llama, gemma4, t5"));
  b.SetString("tokenizer.ggml.model", "llama");
  EXPECT_THAT(ErrorOf(b), Says("tokenizer.ggml.scores", "is missing"));
  b.SetString("tokenizer.ggml.model", "t5");
  b.SetInt32s("tokenizer.ggml.precompiled_charsmap", {1});
  EXPECT_THAT(ErrorOf(b), Says("tokenizer.ggml.precompiled_charsmap", "int32", "uint8"));
  b = TinyLlama();
  b.SetString("tokenizer.ggml.model", "llama");
  b.SetBool("tokenizer.ggml.remove_extra_whitespaces", 1);
  EXPECT_THAT(ErrorOf(b), Says("remove_extra_whitespaces", "only false"));
}

TEST(GgufTokenizerTest, BosComesFromTheKeyOrTheFamily) {
  GgufBuilder b = TinyLlama();
  EXPECT_TRUE(Read(b)->prefix.empty());
  b.SetBool("tokenizer.ggml.add_bos_token", 1);
  EXPECT_THAT(Read(b)->prefix, ElementsAre(1));
  b.RemoveKey("tokenizer.ggml.add_bos_token");
  EXPECT_TRUE(Read(b)->prefix.empty());
  b.SetString("tokenizer.ggml.pre", "llama-bpe");
  EXPECT_THAT(Read(b)->prefix, ElementsAre(1));
}

}  // namespace
}  // namespace acuity::engine
