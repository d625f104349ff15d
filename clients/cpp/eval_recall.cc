#include "clients/cpp/eval_recall.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <stdexcept>

#include "clients/cpp/eval_statistics.h"

namespace acuity::client {
namespace {

using nlohmann::json;

constexpr int kMaxPairs = 1024;
constexpr int kMaxLength = 1 << 20;  // the longest prompt that a daemon takes
constexpr int64_t kMaxToken = INT32_MAX;

class TaskReader {
 public:
  TaskReader(const json& object, const std::string& path) : object_(object), path_(path) {}

  int Integer(const char* name, int low, int high) const {
    return static_cast<int>(Checked(Member(name), name, low, high));
  }
  TokenRange Range(const char* name) const {
    const json& value = Member(name);
    if (!value.is_array() || value.size() != 2) Fail(name, value, "two token ids [first, last]");
    TokenRange range;
    range.first = static_cast<int32_t>(Checked(value[0], name, 0, kMaxToken));
    range.last = static_cast<int32_t>(Checked(value[1], name, range.first, kMaxToken));
    return range;
  }
  [[noreturn]] void Fail(const char* name, const json& value, const std::string& wanted) const {
    throw std::runtime_error(path_ + ": " + name + " is " + value.dump() + "; " + wanted);
  }

 private:
  const json& Member(const char* name) const {
    const auto it = object_.find(name);
    if (it == object_.end()) throw std::runtime_error(path_ + ": " + name + " is missing");
    return *it;
  }
  int64_t Checked(const json& value, const char* name, int64_t low, int64_t high) const {
    if (!value.is_number_integer() || value < low || value > high) {
      Fail(name, value, "from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value.get<int64_t>();
  }

  const json& object_;
  const std::string& path_;
};

// `count` distinct numbers below `limit` >= count, uniformly (Floyd), in no particular order.
std::vector<int64_t> Distinct(std::mt19937_64& random, int count, int64_t limit) {
  std::vector<int64_t> chosen;
  for (int64_t top = limit - count; top < limit; ++top) {
    const auto x = static_cast<int64_t>(Below(random, static_cast<uint64_t>(top) + 1));
    const bool taken = std::find(chosen.begin(), chosen.end(), x) != chosen.end();
    chosen.push_back(taken ? top : x);
  }
  return chosen;
}

template <typename T>
void Shuffle(std::mt19937_64& random, std::vector<T>& values) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[Below(random, i)]);
}

int32_t Draw(std::mt19937_64& random, const TokenRange& range) {
  return range.first + static_cast<int32_t>(Below(random, static_cast<uint64_t>(range.size())));
}

}  // namespace

RecallTask ParseRecallTask(const std::string& text, const std::string& path) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) throw std::runtime_error(path + ": it is not a JSON object");
  const TaskReader reader(object, path);
  if (object.value("task", json()) != "keyed_recall") {
    reader.Fail("task", object.value("task", json()), "only \"keyed_recall\" is known");
  }
  RecallTask task;
  task.pairs = reader.Integer("pairs", 1, kMaxPairs);
  task.trained_length = reader.Integer("trained_length", task.min_length(), kMaxLength);
  task.noise = reader.Range("noise_tokens");
  task.keys = reader.Range("key_tokens");
  task.values = reader.Range("value_tokens");
  if (task.keys.size() < task.pairs) {
    reader.Fail("key_tokens", object["key_tokens"],
                "at least as many as pairs, " + std::to_string(task.pairs));
  }
  return task;
}

RecallPrompt MakeRecallPrompt(const RecallTask& task, int length, uint64_t seed, int index) {
  std::mt19937_64 random =
      GeneratorOf(seed, static_cast<uint64_t>(length), static_cast<uint64_t>(index));
  const int body = length - 2 * task.pairs;
  RecallPrompt prompt;
  for (int i = 0; i < body; ++i) prompt.tokens.push_back(Draw(random, task.noise));

  // Every way to put `pairs` blocks of two into the body corresponds to a choice of `pairs` among
  // body - pairs places: block i is moved up by the i blocks before it.
  std::vector<int64_t> places = Distinct(random, task.pairs, body - task.pairs);
  std::sort(places.begin(), places.end());
  std::vector<int64_t> keys = Distinct(random, task.pairs, task.keys.size());
  Shuffle(random, keys);
  std::vector<int> pairs;
  for (int i = 0; i < task.pairs; ++i) {
    const auto at = static_cast<int>(places[i]) + i;
    prompt.tokens[at] = task.keys.first + static_cast<int32_t>(keys[i]);
    prompt.tokens[at + 1] = Draw(random, task.values);
    pairs.push_back(at);
  }
  Shuffle(random, pairs);
  for (int pair : pairs) {
    const int32_t value = prompt.tokens[pair + 1];
    prompt.queries.push_back({static_cast<int>(prompt.tokens.size()), pair, value});
    prompt.tokens.push_back(prompt.tokens[pair]);
    prompt.tokens.push_back(value);
  }
  return prompt;
}

}  // namespace acuity::client
