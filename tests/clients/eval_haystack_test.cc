#include "clients/cpp/eval_haystack.h"

#include <gmock/gmock.h>

namespace acuity::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// One token a word, its space in front.
Haystack Words(const std::string& text) {
  Haystack haystack{text, {}};
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == ' ') haystack.ends.push_back(i);
  }
  haystack.ends.push_back(text.size());
  return haystack;
}

TEST(HaystackTest, TheSentenceGoesWhereTheDepthSays) {
  const Haystack haystack = Words("One two. Three four. Five six. Seven eight.");
  size_t at = 0;
  const auto hide = [&](int depth) { return Hide(haystack, 0, 8, depth, "NEEDLE. ", &at); };
  EXPECT_THAT(hide(0), StartsWith("NEEDLE. One two."));
  EXPECT_EQ(at, 0u);
  EXPECT_EQ(hide(40), "One two. Three four. NEEDLE. Five six. Seven eight.");
  EXPECT_EQ(hide(40).substr(at, 6), "NEEDLE");
  EXPECT_EQ(hide(100), "One two. Three four. Five six. Seven eight.NEEDLE. ");
}

TEST(HaystackTest, GoesRoundAtItsEnd) {
  const Haystack haystack = Words("a b c");
  size_t at = 0;
  EXPECT_EQ(Hide(haystack, 2, 5, 0, "", &at), " ca b ca");
  EXPECT_EQ(Hide(haystack, 7, 2, 0, "", &at), " b c");
}

TEST(HaystackTest, CutsAtWholeCharacters) {
  // Three tokens in the middle of two characters of three bytes.
  const Haystack haystack = {"\u20ac\u20ac", {2, 4, 6}};
  for (size_t first = 0; first < 3; ++first) {
    for (size_t tokens = 1; tokens < 7; ++tokens) {
      for (int depth : {0, 30, 60, 100}) {
        size_t at = 0;
        const std::string text = Hide(haystack, first, tokens, depth, "x", &at);
        std::string without = text;
        without.erase(at, 1);
        EXPECT_EQ(without.size() % 3, 0u);
        for (size_t i = 0; i < without.size(); i += 3) EXPECT_EQ(without.substr(i, 3), "\u20ac");
      }
    }
  }
}

TEST(HaystackTest, NeedlesDifferAndSayTheirNumber) {
  const Needle needle = MakeNeedle(1, 2), same = MakeNeedle(1, 2), other = MakeNeedle(1, 3);
  EXPECT_EQ(needle.sentence(), same.sentence());
  EXPECT_NE(needle.sentence(), other.sentence());
  EXPECT_EQ(needle.number.size(), 5u);
  EXPECT_THAT(needle.sentence(), HasSubstr(needle.number));
  EXPECT_THAT(needle.question(), HasSubstr(needle.city));
  EXPECT_THAT(needle.sentence(), StartsWith(needle.lead()));
}

TEST(TokensOfBytesTest, FindsTheTokensThatOverlap) {
  const std::vector<std::string> pieces = {"<s>", "ab", "", "cd", "ef"};
  const auto part = [&](size_t begin, size_t end) {
    const TokenPart p = TokensOfBytes(pieces, begin, end);
    return std::pair(p.first, p.last);
  };
  EXPECT_EQ(part(0, 3), std::pair(0, 1));
  EXPECT_EQ(part(3, 5), std::pair(1, 2));
  EXPECT_EQ(part(4, 6), std::pair(1, 4));
  EXPECT_EQ(part(5, 7), std::pair(3, 4));
  EXPECT_EQ(part(7, 9), std::pair(4, 5));
  EXPECT_EQ(part(8, 9), std::pair(4, 5));
}

}  // namespace
}  // namespace acuity::client
