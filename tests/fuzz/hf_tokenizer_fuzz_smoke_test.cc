// What the ordinary suite runs of the fuzzer: the seeds, every prefix of them, and seeded
// mutations, the same on every run.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/loader/hf_tokenizer_file.h"
#include "engine/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "tests/fuzz/hf_tokenizer_fuzz.h"

namespace acuity::engine {
namespace {

constexpr int kMutations = 10000;

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const auto& entry : std::filesystem::directory_iterator("tests/fuzz/hf_tokenizer")) {
    std::ifstream file(entry.path(), std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::sort(seeds.begin(), seeds.end());
  return seeds;
}

// In a heap block of exactly this size: ASan sees a byte too far.
void RunOnce(const std::string& text) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[text.size()]);
  std::copy(text.begin(), text.end(), copy.get());
  ASSERT_EQ(LLVMFuzzerTestOneInput(copy.get(), text.size()), 0);
}

TEST(HfTokenizerFuzzSmoke, SeedsAreTokenizers) {
  ASSERT_EQ(Seeds().size(), 3u);
  for (const std::string& seed : Seeds()) {
    auto spec = ReadHfTokenizerFile(seed);
    ASSERT_TRUE(spec.ok()) << spec.status();
    const auto tokenizer = Tokenizer::Create(*std::move(spec));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    RunOnce(seed);
  }
}

TEST(HfTokenizerFuzzSmoke, EveryPrefixIsRefused) {
  for (const std::string& seed : Seeds()) {
    const size_t end = seed.find_last_of('}');
    for (size_t size = 0; size <= end; ++size) {
      const auto spec = ReadHfTokenizerFile(seed.substr(0, size));
      ASSERT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << size;
    }
  }
}

TEST(HfTokenizerFuzzSmoke, Mutations) {
  const std::vector<std::string> seeds = Seeds();
  std::mt19937_64 random(1);
  const auto below = [&random](size_t limit) { return random() % limit; };
  // What breaks JSON, numbers, ids and patterns.
  const char* const parts[] = {"null",    "-1",   "1e999",    "99999999999999999999",
                               "524288",  "{}",   "[]",       "\"\"",
                               "(",       "[^",   "\\\\p{",   "{2,}",
                               "\\u0000", "\xFF", "\"id\":0,"};
  for (int i = 0; i < kMutations; ++i) {
    std::string text = seeds[below(seeds.size())];
    for (size_t left = 1 + below(3); left > 0; --left) {
      const size_t at = below(text.size());
      const size_t length = std::min<size_t>(1 + below(24), text.size() - at);
      switch (below(4)) {
        case 0:
          text[at] = static_cast<char>(below(256));
          break;
        case 1:
          text.erase(at, std::min(length, text.size() - 1));
          break;
        case 2:
          text.insert(at, text.substr(below(text.size()), length));
          break;
        default:
          text.replace(at, length, parts[below(std::size(parts))]);
      }
    }
    RunOnce(text);
  }
}

}  // namespace
}  // namespace acuity::engine
