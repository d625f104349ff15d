// A prompt of one repeated character must not cost more than its share, whatever the character is.
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/loader/hf_tokenizer_file.h"
#include "engine/tokenizer/byte_pair_merger.h"
#include "engine/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/small_spec.h"

namespace acuity::engine {
namespace {

constexpr size_t kMebibyte = 1 << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kMaxSeconds = 10;
#else
constexpr double kMaxSeconds = 1;  // a quadratic step would take minutes
#endif

// One of each class that the patterns tell apart, and of each length in UTF-8.
constexpr const char* kCharacters[] = {
    "a",      "A",      "1",      " ",          "\n",         "\r",         "\t",         "\v",
    "'",      ".",      "_",      "<",          "\x01",       "\x7f",       "\u00e9",     "\u01c5",
    "\u02b0", "\u05d0", "\u0301", "\u0903",     "\u20dd",     "\u0663",     "\u2160",     "\u00bd",
    "\u00a0", "\u2003", "\u2028", "\u2029",     "\u3000",     "\u0085",     "\u180e",     "\u200d",
    "\ufeff", "\ue000", "\u203f", "\u2014",     "\u201c",     "\u201d",     "\u00ab",     "\u2211",
    "\u20ac", "\u00a9", "\u4e00", "\U0001F600", "\U0001D7D8", "\U000E0001", "\U0010FFFD", "\r\n",
    " \n",    "a ",     "'s",     " a",         "1a",         "a\u0301"};

std::string Fill(std::string_view unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

class RunTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RunTest, AMebibyteTakesLessThanASecond) {
  const auto tokenizer = Tokenizer::Create(SmallSpec(GetParam()));
  ASSERT_TRUE(tokenizer.ok());
  for (const char* unit : kCharacters) {
    for (const char* end : {"", "x"}) {
      const std::string text = Fill(unit, kMebibyte) + end;
      const std::clock_t start = std::clock();  // of this process: a busy machine does not count
      const auto ids = (*tokenizer)->Encode(text, {.parse_special = true});
      const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_LT(seconds, kMaxSeconds) << ::testing::PrintToString(std::string(unit));
      if (*end == '\0' && (*tokenizer)->spec().normaliser.empty()) {
        EXPECT_EQ((*tokenizer)->Decode(*ids), text);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Names, RunTest,
                         ::testing::Values("smollm", "gpt2", "llama-bpe", "qwen2", "gpt-4o"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

// The other families, as the fuzzer's seeds have them; marks that Unicode's order exchanges.
TEST(FamiliesTest, AMebibyteTakesLessThanASecond) {
  for (const char* name : {"byte_level", "sentence_piece", "unigram"}) {
    std::ifstream file("tests/fuzz/hf_tokenizer/" + std::string(name) + ".json");
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    auto spec = ReadHfTokenizerFile(json);
    ASSERT_TRUE(spec.ok()) << spec.status();
    const auto tokenizer = Tokenizer::Create(*std::move(spec));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const char* unit : {"a", "ab", " ", "a ", "\n", "1", "\u00e9", "\u2581", "\u0301\u0323",
                             "e\u0323\u0301", "\u4e00", "\U0001F468\u200D", "<s>", " <tool> "}) {
      const std::string text = Fill(unit, kMebibyte);
      const std::clock_t start = std::clock();
      EXPECT_TRUE((*tokenizer)->Encode(text, {.parse_special = true}).ok());
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, kMaxSeconds)
          << name << " " << ::testing::PrintToString(std::string(unit));
    }
  }
}

TEST(SpecialTokensTest, AlmostSpecialTokensAreLinear) {
  const auto tokenizer = Tokenizer::Create(SmallSpec());
  ASSERT_TRUE(tokenizer.ok());
  for (const char* unit : {"<|im_en", "<|endoftext|", "<user", "<|im_end|>", "<"}) {
    EXPECT_TRUE((*tokenizer)->Encode(Fill(unit, kMebibyte), {.parse_special = true}).ok());
  }
}

// Counts heap entries instead of time, which tells n log n from n^2 on any machine.
TEST(BytePairMergerTest, StepsGrowLinearly) {
  // Powers of two of one byte, and pairs that undo each other's neighbours.
  std::vector<BytePairMerger::Merge> merges = {
      {'x', 'y', 300, 0}, {'y', 'x', 301, 1}, {300, 301, 302, 2}};
  TokenId last = 'a';
  for (TokenId id = 256; id < 280; ++id) {
    merges.push_back({last, last, id, static_cast<int32_t>(merges.size())});
    last = id;
  }
  const auto merger = BytePairMerger::Create(merges);
  ASSERT_TRUE(merger.ok());
  for (const char* unit : {"a", "xy", "xyyx", "ab", "aaxy"}) {
    uint64_t steps[2];
    for (int i = 0; i < 2; ++i) {
      BytePairMerger::Scratch scratch;
      std::vector<TokenId> ids;
      const std::string text = Fill(unit, kMebibyte / 2 << i);
      const std::vector<TokenId> word(text.begin(), text.end());
      merger->Apply(word, &scratch, &ids);
      steps[i] = scratch.steps;
      EXPECT_LE(steps[i], 3 * (kMebibyte / 2 << i));  // each merge queues two entries at most
    }
    EXPECT_LE(static_cast<double>(steps[1]), 2.05 * static_cast<double>(steps[0])) << unit;
  }
}

}  // namespace
}  // namespace acuity::engine
