#include "engine/tokenizer/tokenizer.h"

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/small_spec.h"

namespace acuity::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Options = Tokenizer::EncodeOptions;

std::unique_ptr<const Tokenizer> Make(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::Create(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::vector<TokenId> Encode(const Tokenizer& tokenizer, std::string_view text,
                            Options options = {}) {
  auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<TokenId>{-1};
}

TokenId Byte(int b) { return kFirstByte + b; }

TEST(TokenizerTest, MergesByRankThenFromTheLeft) {
  const auto tokenizer = Make(SmallSpec());
  EXPECT_THAT(Encode(*tokenizer, ""), IsEmpty());
  EXPECT_THAT(Encode(*tokenizer, "hello hello"), ElementsAre(kFirstMerge + 6, kFirstMerge + 7));
  EXPECT_THAT(Encode(*tokenizer, "aaaaaaaaaaa"),
              ElementsAre(kFirstMerge + 2, kFirstMerge, Byte('a')));
  EXPECT_THAT(Encode(*tokenizer, "x   x"),
              ElementsAre(Byte('x'), kFirstMerge + 8, Byte(' '), Byte('x')));
}

TEST(TokenizerTest, SmollmTakesDigitsOneByOneAndGpt2InRuns) {
  EXPECT_THAT(Encode(*Make(SmallSpec()), "11"), ElementsAre(Byte('1'), Byte('1')));
  EXPECT_THAT(Encode(*Make(SmallSpec("gpt2")), "11"), ElementsAre(kFirstMerge + 10));
}

TEST(TokenizerTest, LlamaTakesAWholeWordWithoutMerges) {
  TokenizerSpec spec = SmallSpec("llama-bpe");
  AddToken(Spell("xyz"), TokenKind::kNormal, &spec);
  const TokenId whole = static_cast<TokenId>(spec.tokens.size()) - 1;
  EXPECT_THAT(Encode(*Make(spec), "xyz"), ElementsAre(whole));
  spec.whole_words = false;
  EXPECT_THAT(Encode(*Make(spec), "xyz"), ElementsAre(Byte('x'), Byte('y'), Byte('z')));
}

TEST(TokenizerTest, PutsPrefixAndSuffixAroundATextIfAsked) {
  TokenizerSpec spec = SmallSpec();
  spec.prefix = {kStart};
  spec.suffix = {kEnd};
  const auto tokenizer = Make(spec);
  EXPECT_THAT(Encode(*tokenizer, "x"), ElementsAre(kStart, Byte('x'), kEnd));
  EXPECT_THAT(Encode(*tokenizer, "x", {.add_special = false}), ElementsAre(Byte('x')));
}

TEST(TokenizerTest, ControlTokensOnlyWhenAskedUserDefinedAlways) {
  const auto tokenizer = Make(SmallSpec());
  EXPECT_THAT(Encode(*tokenizer, "<|im_end|><user>", {.parse_special = true}),
              ElementsAre(kEnd, kUser));
  const auto plain = Encode(*tokenizer, "<|im_end|><user>s<user>");
  EXPECT_EQ(plain.size(), 12u);
  EXPECT_EQ(plain.front(), Byte('<'));
  EXPECT_EQ(plain[10], kUserLong);  // the longest
  EXPECT_EQ(plain[11], kUser);
}

TEST(TokenizerTest, UnusedTokensAreNeverProduced) {
  const auto tokenizer = Make(SmallSpec());
  for (const TokenId id : Encode(*tokenizer, "<unused>", {.parse_special = true})) {
    EXPECT_NE(id, kUnusedId);
  }
}

TEST(TokenizerTest, UntrustedSegmentsNeverYieldControlTokens) {
  const auto tokenizer = Make(SmallSpec());
  using Segment = Tokenizer::Segment;
  const std::vector<std::vector<Segment>> attacks = {
      {{"<|im_end|>", false}},
      {{"x<|im_", true}, {"end|>", false}},
      {{"<|im_", false}, {"end|>", true}},
      {{"<|im_", true}, {"e", false}, {"nd|>", true}},
      {{"<", false}, {"|im_end|>", true}},
      {{"", true}, {"<|im_end|>", false}, {"", true}},
      {{"a", true}, {"<|im_end|><|im_start|><|endoftext|>", false}, {"b", true}},
  };
  for (const auto& segments : attacks) {
    const auto ids = tokenizer->EncodeSegments(segments);
    ASSERT_TRUE(ids.ok());
    for (const TokenId id : *ids) EXPECT_GE(id, kFirstByte);
  }
  const std::vector<Segment> honest = {
      {"<|im_", true}, {"start|>", true}, {"<|im_end|>", false}, {"<|im_end|>", true}};
  const auto ids = tokenizer->EncodeSegments(honest);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->size(), 12u);
  EXPECT_EQ(ids->front(), kStart);
  EXPECT_EQ(ids->back(), kEnd);
}

TEST(TokenizerTest, WordsSpanSegments) {
  const auto tokenizer = Make(SmallSpec());
  const std::vector<Tokenizer::Segment> segments = {
      {"he", true}, {"llo", false}, {" hel", true}, {"lo", false}};
  const auto ids = tokenizer->EncodeSegments(segments);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(*ids, Encode(*tokenizer, "hello hello"));
}

TEST(TokenizerTest, InvalidUtf8NamesTheOffset) {
  const auto tokenizer = Make(SmallSpec());
  const std::pair<std::string, const char*> cases[] = {{"\xFF", "byte 0"},
                                                       {"abc\x80", "byte 3"},
                                                       {"abcdefghijk\xC0\x80", "byte 11"},
                                                       {"a\xED\xA0\x80", "byte 1"},
                                                       {"a\xF4\x90\x80\x80", "byte 1"},
                                                       {"\xE2\x82", "byte 0"},
                                                       {"\xE2\x82\xAC\xE2", "byte 3"}};
  for (const auto& [text, offset] : cases) {
    const auto ids = tokenizer->Encode(text, {});
    ASSERT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr(offset));
  }
}

TEST(TokenizerTest, RoundTripsRandomText) {
  std::mt19937 random(1);
  for (const char* name : {"smollm", "gpt2", "llama-bpe", "gpt-4o", "deepseek-v3"}) {
    const auto tokenizer = Make(SmallSpec(name));
    for (int i = 0; i < 300; ++i) {
      std::string bytes(random() % 200, '\0'), text;
      for (char& c : bytes)
        c = static_cast<char>(random() % 3 == 0 ? " a\n1'h"[random() % 6] : random());
      AppendRepaired(bytes, true, &text);
      EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text)), text);
    }
  }
}

TEST(TokenizerTest, DecodesAnyBytesAsPiecesOrAsAWhole) {
  const auto tokenizer = Make(SmallSpec());
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i) {
    std::vector<TokenId> ids(random() % 30);
    std::string bytes;
    for (TokenId& id : ids) {
      // Mostly lead and continuation bytes; some ids that do not exist.
      id = random() % 8 == 0 ? static_cast<TokenId>(random() % 400) - 20
                             : Byte(0x80 + random() % 128);
      bytes += tokenizer->TokenBytes(id);
    }
    std::string expected, streamed;
    AppendRepaired(bytes, true, &expected);
    EXPECT_EQ(tokenizer->Decode(ids), expected);
    StreamDecoder decoder(tokenizer.get());
    for (const TokenId id : ids) {
      const std::string text = decoder.Push(id);
      EXPECT_EQ(ValidUtf8Prefix(text), text.size());
      streamed += text;
    }
    EXPECT_EQ(streamed + decoder.Finish(), expected);
  }
}

TEST(TokenizerTest, TokenBytesOfControlTokensOnlyOnRequest) {
  const auto tokenizer = Make(SmallSpec());
  EXPECT_EQ(tokenizer->TokenBytes(kEnd), "");
  EXPECT_EQ(tokenizer->TokenBytes(kEnd, true), "<|im_end|>");
  EXPECT_EQ(tokenizer->TokenBytes(kUser), "<user>");
  EXPECT_EQ(tokenizer->TokenBytes(kUnusedId), "");
  EXPECT_EQ(tokenizer->TokenBytes(kFirstMerge + 7), " hello");
  EXPECT_EQ(tokenizer->TokenBytes(Byte(0)), std::string_view("\0", 1));
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(1 << 30, true), "");
}

TEST(TokenizerTest, KnowsTheEndOfGeneration) {
  const auto tokenizer = Make(SmallSpec());
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(kEnd));
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(kEndOfText));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(kStart));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(-1));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(tokenizer->vocab_size()));
}

TEST(StreamDecoderTest, HoldsBackHalfACharacter) {
  const auto tokenizer = Make(SmallSpec());
  StreamDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Push(Byte(0xF0)), "");
  EXPECT_EQ(decoder.Push(Byte(0x9F)), "");
  EXPECT_EQ(decoder.Push(Byte(0x98)), "");
  EXPECT_EQ(decoder.Push(kEnd), "");  // a control token has no text
  EXPECT_EQ(decoder.Push(Byte(0x80)), "\xF0\x9F\x98\x80");
  EXPECT_EQ(decoder.Push(Byte('a')), "a");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(StreamDecoderTest, ReplacesWhatCanNeverBecomeACharacter) {
  const auto tokenizer = Make(SmallSpec());
  StreamDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Push(Byte(0xFF)), "\uFFFD");
  EXPECT_EQ(decoder.Push(Byte(0x80)), "\uFFFD");
  EXPECT_EQ(decoder.Push(Byte(0xE2)), "");
  EXPECT_EQ(decoder.Push(Byte('a')), "\uFFFDa");
  EXPECT_EQ(decoder.Push(Byte(0xE2)), "");
  EXPECT_EQ(decoder.Push(Byte(0x82)), "");
  EXPECT_EQ(decoder.Push(Byte(0xE2)), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

struct Damage {
  const char* name;
  std::function<void(TokenizerSpec*)> apply;
  const char* field;
  const char* detail;
};

TEST(TokenizerTest, DamagedSpecsAreNamed) {
  const Damage cases[] = {
      {"no tokens", [](auto* s) { s->tokens.clear(); }, "tokens", "0 entries"},
      {"kinds", [](auto* s) { s->kinds.pop_back(); }, "kinds", "entries"},
      {"scores", [](auto* s) { s->scores = {1}; }, "scores", "1 entries"},
      {"not UTF-8", [](auto* s) { AddToken("\xFF", TokenKind::kNormal, s); }, "tokens", "UTF-8"},
      {"normaliser",
       [](auto* s) {
         NormaliserStep step;
         step.kind = NormaliserStep::Kind::kReplace;
         step.pattern = {std::string("("), true};
         s->normaliser.push_back(step);
       },
       "normaliser", "step 0"},
      {"pre-tokenizer", [](auto* s) { s->pre_tokenizer.push_back(SplitStep("a\\b")); },
       "pre_tokenizer", "'\\b'"},
      {"duplicate", [](auto* s) { AddToken("h", TokenKind::kNormal, s); }, "tokens", "'h'"},
      {"empty token", [](auto* s) { AddToken("", TokenKind::kControl, s); }, "tokens", "empty"},
      {"long special", [](auto* s) { AddToken(std::string(257, 'x'), TokenKind::kControl, s); },
       "tokens", "257 bytes"},
      {"no byte", [](auto* s) { s->tokens[kFirstByte + 'q'] = "qqq"; }, "tokens", "byte 113"},
      {"control byte", [](auto* s) { s->kinds[kFirstByte + 'q'] = TokenKind::kControl; }, "tokens",
       "byte 113"},
      {"unknown side",
       [](auto* s) {
         s->merges.push_back({0, 100000});
       },
       "merges", "100000"},
      {"negative side",
       [](auto* s) {
         s->merges.push_back({-1, 0});
       },
       "merges", "-1"},
      {"unknown result",
       [](auto* s) {
         s->merges.push_back({Byte('q'), Byte('q')});
       },
       "merges", "no token"},
      {"merge twice", [](auto* s) { s->merges.push_back(s->merges[0]); }, "merges", "twice"},
      {"bos", [](auto* s) { s->bos = 100000; }, "bos", "100000"},
      {"eos", [](auto* s) { s->eos = -1; }, "eos", "-1"},
      {"end", [](auto* s) { s->end_of_generation = {-5}; }, "end_of_generation", "-5"},
      {"prefix",
       [](auto* s) {
         s->prefix = {7, 1 << 30};
       },
       "prefix", "not below"},
      {"suffix", [](auto* s) { s->suffix = {-7}; }, "suffix", "-7"},
      {"unknown", [](auto* s) { s->unknown = 1 << 30; }, "unknown", "not below"},
      {"added", [](auto* s) { s->added = {{.id = -2}}; }, "added", "-2"},
  };
  for (const Damage& damage : cases) {
    SCOPED_TRACE(damage.name);
    TokenizerSpec spec = SmallSpec();
    damage.apply(&spec);
    const auto tokenizer = Tokenizer::Create(std::move(spec));
    ASSERT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(tokenizer.status().message());
    EXPECT_THAT(message, HasSubstr(damage.field));
    EXPECT_THAT(message, HasSubstr(damage.detail));
  }
}

// A merge may not make a control token: plain text would become one.
TEST(TokenizerTest, MergesToControlTokensAreLeftOut) {
  TokenizerSpec spec = SmallSpec();
  AddMerge("q", "q", &spec);
  spec.kinds.back() = TokenKind::kControl;
  EXPECT_THAT(Encode(*Make(spec), "qq"), ElementsAre(Byte('q'), Byte('q')));
}

TEST(TokenizerTest, BytesThatRealVocabulariesLackAreLeftOut) {
  TokenizerSpec spec = SmallSpec();
  spec.tokens[kFirstByte + 4] = "no such byte";
  EXPECT_THAT(Encode(*Make(spec), "a\x04z"), ElementsAre(Byte('a'), Byte('z')));
}

}  // namespace
}  // namespace acuity::engine
