// Tokenizers of Hugging Face directories: what the files beside tokenizer.json say, and which files
// are refused and why. What the tokens are is compared with tokenizers in tests/parity.
#include "engine/loader/hf_tokenizer.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/loader/gguf_tokenizer.h"
#include "engine/loader/hf_tokenizer_file.h"
#include "engine/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace acuity::engine {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The fuzzer's seeds, which tests run from the source folder.
std::string Seed(const std::string& name) {
  return ReadFile("tests/fuzz/hf_tokenizer/" + name + ".json");
}

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

class HfTokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = (std::filesystem::temp_directory_path() / "hf_tokenizer_XXXXXX").string();
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    directory_ = path;
    Write("tokenizer.json", Seed("byte_level"));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, std::string_view text) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << text;
  }
  absl::StatusOr<TokenizerSpec> Read() const { return ReadHfTokenizer(directory_); }
  std::string Error() const {
    const auto spec = Read();
    return spec.ok() ? "no error" : std::string(spec.status().message());
  }

  std::string directory_;
};

TEST_F(HfTokenizerTest, TokenizerJsonAlone) {
  const auto spec = Read();
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->tokens.size(), 10u);
  EXPECT_EQ(spec->kinds[0], TokenKind::kControl);
  EXPECT_EQ(spec->kinds[9], TokenKind::kUserDefined);
  EXPECT_THAT(spec->prefix, ElementsAre(0));
  EXPECT_THAT(spec->end_of_generation, IsEmpty());
  EXPECT_EQ(spec->bos, std::nullopt);
  EXPECT_EQ(spec->chat_template, "");
}

TEST_F(HfTokenizerTest, NamesOfTokensAndWhatEndsGeneration) {
  Write("tokenizer_config.json",
        R"({"bos_token": {"content": "<unk>"}, "pad_token": "nowhere", "chat_template": "one"})");
  Write("special_tokens_map.json", R"({"bos_token": "a", "eos_token": "<tool>"})");
  Write("config.json", R"({"eos_token_id": 5})");
  auto spec = Read();
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->bos, 1);
  EXPECT_EQ(spec->eos, 9);
  EXPECT_EQ(spec->pad, std::nullopt);
  EXPECT_EQ(spec->kinds[9], TokenKind::kControl);  // no plain text ends an answer
  EXPECT_EQ(spec->unknown, std::nullopt);          // nor begins one
  EXPECT_THAT(spec->end_of_generation, ElementsAre(5, 9));
  EXPECT_EQ(spec->chat_template, "one");
  Write("generation_config.json", R"({"eos_token_id": [0, 9]})");
  EXPECT_THAT(Read()->end_of_generation, ElementsAre(0, 9));
  Write("generation_config.json", R"({"eos_token_id": 10})");
  EXPECT_THAT(Error(), HasSubstr("generation_config.json: eos_token_id is 10; it must be a token"));
  Write("generation_config.json", R"({"eos_token_id": "end"})");
  EXPECT_THAT(Error(), HasSubstr("eos_token_id is \"end\""));
}

TEST_F(HfTokenizerTest, ClassesThatAddBosThemselves) {
  Write("tokenizer_config.json",
        R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "a", "eos_token": "b"})");
  EXPECT_THAT(Read()->prefix, ElementsAre(2));
  EXPECT_THAT(Read()->suffix, IsEmpty());
  Write("tokenizer_config.json", R"({"tokenizer_class": "GemmaTokenizer", "bos_token": "a",
        "eos_token": "b", "add_bos_token": false, "add_eos_token": true})");
  EXPECT_THAT(Read()->prefix, IsEmpty());
  EXPECT_THAT(Read()->suffix, ElementsAre(3));
  Write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_THAT(Error(), HasSubstr("tokenizer_config.json: add_bos_token is true, but there is no"));
}

TEST_F(HfTokenizerTest, ChatTemplateFiles) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"},
        {"name": "default", "template": "d"}]})");
  EXPECT_EQ(Read()->chat_template, "d");
  Write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(Read()->chat_template, "json");
  Write("chat_template.jinja", "{{ jinja }}");
  EXPECT_EQ(Read()->chat_template, "{{ jinja }}");
  Write("chat_template.jinja", std::string(kMaxChatTemplateBytes + 1, 'x'));
  EXPECT_THAT(Error(), HasSubstr("chat_template.jinja"));
}

TEST_F(HfTokenizerTest, AddedTokensOfTheConfiguration) {
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {"12": {"content": "<new>",
        "special": true, "lstrip": false, "rstrip": false, "single_word": false,
        "normalized": false}}})");
  const auto spec = Read();
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->tokens[12], "<new>");
  EXPECT_EQ(spec->kinds[11], TokenKind::kUnused);
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {"2": {"content": "<new>"}}})");
  EXPECT_THAT(Error(), HasSubstr("added_tokens_decoder.2 is '<new>', but token 2 is 'a'"));
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {"524288": {"content": "x"}}})");
  EXPECT_THAT(Error(), HasSubstr("not from 0 to 524287"));
}

TEST_F(HfTokenizerTest, FilesThatAreMissingOrDamaged) {
  Write("tokenizer_config.json", "{\"bos_token\": ");
  EXPECT_THAT(Error(), HasSubstr("tokenizer_config.json: is not JSON at byte 15"));
  Write("tokenizer_config.json", "[]");
  EXPECT_THAT(Error(), HasSubstr("tokenizer_config.json: is of type array; it must be object"));
  Write("tokenizer_config.json", R"({"eos_token": "<gone>"})");
  EXPECT_THAT(Error(), HasSubstr("eos_token is '<gone>', which is no token of tokenizer.json"));
  std::filesystem::remove(directory_ + "/tokenizer.json");
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kNotFound);
}

struct Damage {
  const char *seed, *from, *to, *error;
};

TEST(HfTokenizerFileTest, WhatIsNotUnderstoodIsRefused) {
  const Damage cases[] = {
      {"byte_level", R"({"type": "NFC"})", R"({"type": "Lowercase"})",
       "normalizer.normalizers[0] is of type 'Lowercase'; supported: Sequence"},
      {"byte_level", R"({"type": "NFC"})", R"({"type": "NFC", "loose": true})",
       "normalizer.normalizers[0] has the field 'loose'"},
      {"byte_level", R"("Digits")", R"("UnicodeScripts")",
       "pre_tokenizer.pretokenizers[0] is of type 'UnicodeScripts'"},
      {"byte_level", R"("individual_digits": true)", R"("individual_digits": 1)",
       "pre_tokenizer.pretokenizers[0].individual_digits is of type number; it must be boolean"},
      {"byte_level", R"("Isolated")", R"("Sideways")", "behavior 'Sideways'"},
      {"byte_level", R"("Digits", "individual_digits": true)", R"("ByteLevel")",
       "comes after ByteLevel, which must be the last"},
      {"byte_level", R"("decoder": {"type": "ByteLevel")", R"("decoder": {"type": "WordPiece")",
       "decoder is of type 'WordPiece', but the pre_tokenizer is ByteLevel"},
      {"byte_level", R"("TemplateProcessing")", R"("BertProcessing")",
       "post_processor is of type 'BertProcessing'"},
      {"byte_level", R"("ids": [0])", R"("ids": [10])",
       "post_processor.special_tokens.<|end|>.ids"},
      {"byte_level", R"("type": "BPE")", R"("type": "WordLevel")",
       "model is of type 'WordLevel'; supported: BPE, Unigram"},
      {"byte_level", R"("dropout": null)", R"("dropout": 0.1)", "dropout 0.1"},
      {"byte_level", R"("end_of_word_suffix": null)", R"("end_of_word_suffix": "</w>")",
       "end_of_word_suffix '</w>'"},
      {"byte_level", R"("unk_token": "<unk>")", R"("unk_token": "<what>")", "unk_token '<what>'"},
      {"byte_level", R"("a b")", R"("a z")", "model.merges[0]: 'z' is no token"},
      {"byte_level", R"("a b")", R"("b a")", "model.merges[0]: 'ba' is no token"},
      {"byte_level", R"("a b")", R"("ab")", "model.merges[0] is 'ab'; it must be two tokens"},
      {"byte_level", R"("a b")", R"(7)", "model.merges[0] is of type number"},
      {"byte_level", R"("b": 3)", R"("b": 2)", "have the same id, 2"},
      {"byte_level", R"("b": 3)", R"("b": 524288)", "the id of 'b' is 524288; it must be"},
      {"byte_level", R"("b": 3)", R"("b": -1)", "the id of 'b' is -1"},
      {"byte_level", R"("b": 3)", R"("b": 3.5)", "the id of 'b' is 3.5"},
      {"byte_level", R"("b": 3)", R"("b": 3, "b": 20)", "'b' is token 3 and token 20"},
      {"byte_level", R"("id": 9, "content")", R"("id": 8, "content")",
       "added_tokens[1] is '<tool>', but token 8 is '1'"},
      {"byte_level", R"("id": 9, "content")", R"("id": 99999999, "content")",
       "added_tokens[1].id is 99999999; it must be from 0 to 524287"},
      {"byte_level", R"("version")", R"("extra")", "has the field 'extra'"},
      {"sentence_piece", R"({"type": "ByteFallback"}, {"type": "Fuse"})",
       R"({"type": "Fuse"}, {"type": "ByteFallback"})", "decoder.decoders[2] comes too late"},
      {"sentence_piece", R"({"type": "Fuse"}, )", "", "is Strip, but does not follow Fuse"},
      {"sentence_piece", R"("stop": 0)", R"("stop": 1)", "decoders[3].stop is 1"},
      {"sentence_piece", R"(["▁", "a"])", R"(["▁", "a", "b"])",
       "model.merges[0] is not an array of two strings"},
      {"unigram", R"("unk_id": 0)", R"("unk_id": 7)", "model.unk_id is 7; it must be from 0 to 6"},
      {"unigram", R"(["a", -3])", R"(["a"])", "model.vocab[3] is not [token, finite score]"},
      {"unigram", R"(["a", -3])", R"(["▁", -3])", "is token 2 and token 3"},
      {"unigram", R"("BAAAAAAAAABhAA==")", R"("!")", "not base64"},
  };
  for (const Damage& damage : cases) {
    const auto spec = ReadHfTokenizerFile(Replaced(Seed(damage.seed), damage.from, damage.to));
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << damage.error;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(damage.error));
  }
}

TEST(HfTokenizerFileTest, Limits) {
  std::string deep = "{\"model\": ";
  for (int i = 0; i < 1000; ++i) deep += "[";
  for (int i = 0; i < 1000; ++i) deep += "]";
  EXPECT_THAT(std::string(ReadHfTokenizerFile(deep + "}").status().message()),
              HasSubstr("nested deeper than 64"));
  std::string vocab;
  for (uint64_t i = 0; i <= kMaxVocabulary; ++i) {
    vocab += (i == 0 ? "[\"" : ",[\"") + std::to_string(i) + "\",-1]";
  }
  EXPECT_THAT(
      std::string(
          ReadHfTokenizerFile(Replaced(Seed("unigram"), R"(["a", -3])", vocab)).status().message()),
      HasSubstr("model.vocab has more than 524288 tokens"));
}

TEST(HfTokenizerFileTest, ControlTokensInNormalisedText) {
  auto spec = ReadHfTokenizerFile(Seed("sentence_piece"));
  ASSERT_TRUE(spec.ok());
  const auto tokenizer = Tokenizer::Create(*std::move(spec));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  using Segment = Tokenizer::Segment;
  const std::vector<Segment> trusted = {{"<s>", true}, {"ab", false}};
  EXPECT_THAT(*(*tokenizer)->EncodeSegments(trusted), ElementsAre(1, 5, 7));
  for (const std::vector<Segment>& attack : {std::vector<Segment>{{"<s>", false}},
                                             {{"<", true}, {"s>", false}},
                                             {{"<s", false}, {">", true}}}) {
    EXPECT_THAT(*(*tokenizer)->EncodeSegments(attack), Not(Contains(1)));
  }
}

// Bytes that are no character: each maximal part is one U+FFFD, as in a stream.
TEST(HfTokenizerFileTest, ByteFallbackInAStream) {
  auto spec = ReadHfTokenizerFile(Seed("sentence_piece"));
  ASSERT_TRUE(spec.ok());
  const auto tokenizer = Tokenizer::Create(*std::move(spec));
  ASSERT_TRUE(tokenizer.ok());
  const std::vector<TokenId> ids = {6, 2, 3, 2, 5, 3, 4};
  EXPECT_EQ((*tokenizer)->Decode(ids), "a\u00e9\uFFFDa\uFFFD ");
  StreamDecoder decoder(tokenizer->get());
  EXPECT_EQ(decoder.Push(6), " a");  // after a prompt its space stays
  EXPECT_EQ(decoder.Push(2), "");
  EXPECT_EQ(decoder.Push(3), "\u00e9");
}

}  // namespace
}  // namespace acuity::engine
