// The keyed recall task, at the level of tokens: a needle in a haystack for models that know no
// language. Noise hides (key, value) pairs; the prompt's end repeats each key, and the value must
// follow.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acuity::client {

struct TokenRange {
  int32_t first = 0, last = 0;  // inclusive
  int64_t size() const { return int64_t{last} - first + 1; }
};

struct RecallTask {
  int trained_length = 0;  // tokens of the longest prompts in training
  int pairs = 0;
  TokenRange noise, keys, values;

  // Below it the pairs do not fit.
  int min_length() const { return 4 * pairs; }
};

// {"task": "keyed_recall", "trained_length": 128, "pairs": 6, "noise_tokens": [first, last],
//  "key_tokens": [first, last], "value_tokens": [first, last]}; other members are left alone.
// Throws std::runtime_error that names `path`, the member, its value and the limit.
RecallTask ParseRecallTask(const std::string& json, const std::string& path);

struct RecallPrompt {
  struct Query {
    int key = 0;        // index of the repeated key in `tokens`; its value follows
    int pair = 0;       // index of the pair's key in the body; its value follows
    int32_t value = 0;  // == tokens[key + 1] == tokens[pair + 1]
  };
  std::vector<int32_t> tokens;
  std::vector<Query> queries;  // ascending `key`
};

// `length` >= min_length() tokens. length - 2 pairs of body: uniform noise, with the pairs of
// distinct keys and any values at random disjoint places; then the keys in random order, each with
// its value. A function of its arguments.
RecallPrompt MakeRecallPrompt(const RecallTask& task, int length, uint64_t seed, int index);

}  // namespace acuity::client
