#include "engine/tokenizer/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace acuity::engine {
namespace {

std::string Repair(std::string_view bytes) {
  std::string text;
  EXPECT_EQ(AppendRepaired(bytes, true, &text), bytes.size());
  return text;
}

TEST(Utf8Test, EveryCharacterRoundTripsAndNothingElseIsValid) {
  size_t valid = 0;
  for (uint32_t code = 0; code < 0x120000; ++code) {
    std::string text;
    AppendUtf8(code, &text);
    const bool is_character = code < 0x110000 && (code < 0xD800 || code > 0xDFFF);
    ASSERT_EQ(ValidUtf8Prefix(text) == text.size(), is_character) << code;
    if (!is_character) continue;
    ++valid;
    ASSERT_EQ(DecodeUtf8(text).code, code);
    for (size_t n = 1; n < text.size(); ++n) {
      ASSERT_EQ(DecodeUtf8(text.substr(0, n)).state, Utf8Char::State::kTruncated);
    }
  }
  EXPECT_EQ(valid, 0x110000u - 0x800u);
}

TEST(Utf8Test, ReplacesMaximalSubparts) {
  EXPECT_EQ(Repair(""), "");
  EXPECT_EQ(Repair("a\xF0\x9F\x98z"), "a\uFFFDz");
  EXPECT_EQ(Repair("\xF0\x80\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Repair("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Repair("\xC0\xAF\xC2"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Repair("\xE2\x82\xE2\x82\xAC"), "\uFFFD\u20AC");
}

TEST(Utf8Test, KeepsATruncatedEndForLater) {
  std::string text;
  EXPECT_EQ(AppendRepaired("ab\xE2\x82", false, &text), 2u);
  EXPECT_EQ(text, "ab");
  EXPECT_EQ(AppendRepaired("\xE2\x82", true, &text), 2u);
  EXPECT_EQ(text, "ab\uFFFD");
}

TEST(Utf8Test, FindsTheErrorWhereverItLies) {
  for (size_t i = 0; i < 40; ++i) {
    std::string text(40, 'a');
    text[i] = '\x80';
    EXPECT_EQ(ValidUtf8Prefix(text), i);
  }
}

}  // namespace
}  // namespace acuity::engine
