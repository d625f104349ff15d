#include "clients/cpp/eval_recall.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

namespace acuity::client {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

const RecallTask kTask = {128, 6, {3, 34}, {35, 66}, {67, 98}};

constexpr char kJson[] =
    R"({"task": "keyed_recall", "trained_length": 128, "pairs": 6, "noise_tokens": [3, 34],
        "key_tokens": [35, 66], "value_tokens": [67, 98], "comment": "kept"})";

bool In(const TokenRange& range, int32_t token) {
  return token >= range.first && token <= range.last;
}

TEST(RecallTaskTest, ReadsTheFile) {
  const RecallTask task = ParseRecallTask(kJson, "recall.json");
  EXPECT_EQ(task.trained_length, 128);
  EXPECT_EQ(task.pairs, 6);
  EXPECT_EQ(task.noise.first, 3);
  EXPECT_EQ(task.keys.last, 66);
  EXPECT_EQ(task.values.size(), 32);
}

TEST(RecallTaskTest, NamesWhatIsWrong) {
  const auto with = [](const std::string& from, const std::string& to) {
    std::string json = kJson;
    json.replace(json.find(from), from.size(), to);
    return [json] { ParseRecallTask(json, "recall.json"); };
  };
  EXPECT_THAT([] { ParseRecallTask("[", "x.json"); },
              ThrowsMessage<std::runtime_error>(HasSubstr("x.json")));
  EXPECT_THAT(with("keyed_recall", "other"),
              ThrowsMessage<std::runtime_error>(HasSubstr("task is \"other\"")));
  EXPECT_THAT(with("\"pairs\": 6", "\"pairs\": 0"),
              ThrowsMessage<std::runtime_error>(HasSubstr("pairs is 0; from 1 to")));
  EXPECT_THAT(with("\"pairs\"", "\"pears\""),
              ThrowsMessage<std::runtime_error>(HasSubstr("pairs is missing")));
  EXPECT_THAT(with("128", "23"),
              ThrowsMessage<std::runtime_error>(HasSubstr("trained_length is 23; from 24")));
  EXPECT_THAT(with("[35, 66]", "[35, 39]"),
              ThrowsMessage<std::runtime_error>(HasSubstr("key_tokens is [35,39]; at least")));
  EXPECT_THAT(with("[67, 98]", "[98, 67]"),
              ThrowsMessage<std::runtime_error>(HasSubstr("value_tokens is 67; from 98")));
  EXPECT_THAT(with("[3, 34]", "3"),
              ThrowsMessage<std::runtime_error>(HasSubstr("noise_tokens is 3; two token ids")));
}

TEST(RecallPromptTest, HidesThePairsThatItAsksFor) {
  for (int length : {24, 25, 31, 128, 1000}) {
    for (int index = 0; index < 20; ++index) {
      const RecallPrompt prompt = MakeRecallPrompt(kTask, length, 5, index);
      ASSERT_EQ(std::ssize(prompt.tokens), length);
      ASSERT_EQ(std::ssize(prompt.queries), kTask.pairs);
      std::set<int> taken;
      std::set<int32_t> keys;
      int at = length - 2 * kTask.pairs;
      for (const RecallPrompt::Query& query : prompt.queries) {
        EXPECT_EQ(query.key, at);
        EXPECT_LT(query.pair + 1, length - 2 * kTask.pairs);
        EXPECT_TRUE(In(kTask.keys, prompt.tokens[query.key]));
        EXPECT_TRUE(In(kTask.values, query.value));
        EXPECT_EQ(prompt.tokens[query.pair], prompt.tokens[query.key]);
        EXPECT_EQ(prompt.tokens[query.pair + 1], query.value);
        EXPECT_EQ(prompt.tokens[query.key + 1], query.value);
        taken.insert({query.pair, query.pair + 1});
        keys.insert(prompt.tokens[query.key]);
        at += 2;
      }
      EXPECT_EQ(std::ssize(taken), 2 * kTask.pairs);  // disjoint
      EXPECT_EQ(std::ssize(keys), kTask.pairs);       // distinct
      for (int i = 0; i < length - 2 * kTask.pairs; ++i) {
        EXPECT_TRUE(taken.contains(i) || In(kTask.noise, prompt.tokens[i]));
      }
    }
  }
}

TEST(RecallPromptTest, IsAFunctionOfItsArguments) {
  const auto tokens = [](int length, uint64_t seed, int index) {
    return MakeRecallPrompt(kTask, length, seed, index).tokens;
  };
  EXPECT_EQ(tokens(128, 1, 0), tokens(128, 1, 0));
  EXPECT_NE(tokens(128, 1, 0), tokens(128, 1, 1));
  EXPECT_NE(tokens(128, 1, 0), tokens(128, 2, 0));
}

// Each place and each order is as likely as any other: pairs of two in a body of six have
// C(4, 2) = 6 places, and two orders of asking.
TEST(RecallPromptTest, PlacesAreUniform) {
  const RecallTask task = {10, 2, {0, 0}, {1, 9}, {10, 19}};
  constexpr int kPrompts = 6000;
  std::map<std::vector<int>, int> counts;
  for (int i = 0; i < kPrompts; ++i) {
    const RecallPrompt prompt = MakeRecallPrompt(task, 10, 3, i);
    ++counts[{prompt.queries[0].pair, prompt.queries[1].pair}];
  }
  ASSERT_EQ(counts.size(), 12u);
  double chi_squared = 0;
  for (const auto& [places, count] : counts) {
    const double expected = kPrompts / 12.0;
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_squared, 31.3);  // 11 degrees of freedom, p = .001
}

}  // namespace
}  // namespace acuity::client
