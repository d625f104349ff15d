#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace acuity::engine {
namespace {

// Feeds `text` in pieces and returns everything released.
StopMatcher::Released Feed(const std::vector<std::string>& stops,
                           const std::vector<std::string>& pieces) {
  StopMatcher matcher(&stops);
  StopMatcher::Released all;
  for (const std::string& piece : pieces) {
    StopMatcher::Released released = matcher.Push(piece);
    all.text += released.text;
    if (released.stopped) {
      all.stopped = true;
      return all;
    }
  }
  all.text += matcher.Finish();
  return all;
}

TEST(StopMatcherTest, WithoutStopsNothingIsHeldBack) {
  const std::vector<std::string> none;
  StopMatcher matcher(&none);
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAStop) {
  const std::vector<std::string> stops = {"END"};
  StopMatcher matcher(&stops);
  EXPECT_EQ(matcher.Push("the E").text, "the ");
  EXPECT_EQ(matcher.Push("x").text, "Ex");
  EXPECT_EQ(matcher.Push("EN").text, "");
  EXPECT_EQ(matcher.Finish(), "EN");
}

TEST(StopMatcherTest, CutsAtTheEarliestStopAcrossPieces) {
  const auto released = Feed({"\n\n", "stop"}, {"a\n", "b s", "to", "p and \n\n"});
  EXPECT_TRUE(released.stopped);
  EXPECT_EQ(released.text, "a\nb ");
}

TEST(StopMatcherTest, OverlappingBeginnings) {
  EXPECT_EQ(Feed({"aab"}, {"a", "a", "a", "b", "c"}).text, "a");
  EXPECT_EQ(Feed({"abab"}, {"ab", "a", "c"}).text, "abac");
}

TEST(StopMatcherTest, AnySplitGivesWhatTheWholeTextGives) {
  std::mt19937 random(3);
  const std::vector<std::string> stops = {"aba", "bb", "caab"};
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) text += static_cast<char>('a' + random() % 3);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 4;
      pieces.push_back(text.substr(at, length));
      at += length;
    }
    size_t first = std::string::npos, end = std::string::npos;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      // The stop that is complete first wins; among those, the one that began first.
      if (end == std::string::npos || at + stop.size() < end ||
          (at + stop.size() == end && at < first)) {
        first = at;
        end = at + stop.size();
      }
    }
    const auto released = Feed(stops, pieces);
    EXPECT_EQ(released.stopped, first != std::string::npos) << text;
    if (first == std::string::npos) {
      EXPECT_EQ(released.text, text);
    } else {
      // A stop inside one piece may begin earlier than one that ends earlier.
      EXPECT_LE(released.text.size(), first) << text;
      EXPECT_EQ(text.substr(0, released.text.size()), released.text);
    }
  }
}

}  // namespace
}  // namespace acuity::engine
