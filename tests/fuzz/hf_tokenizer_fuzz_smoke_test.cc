// What the ordinary suite runs of the tokenizer.json fuzzer: the seeds, every prefix of them, and
// seeded mutations, the same on every run.
#include <algorithm>

#include "engine/loader/hf_tokenizer_file.h"
#include "engine/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "tests/fuzz/smoke.h"

namespace acuity::engine::testing {
namespace {

constexpr char kSeeds[] = "tests/fuzz/hf_tokenizer";
constexpr int kMutations = 10000;
// What breaks ids and patterns.
constexpr std::string_view kPatternPieces[] = {"(", "[^", "\\\\p{", "{2,}", "\"id\":0,"};

TEST(HfTokenizerFuzzSmoke, SeedsAreTokenizers) {
  ASSERT_EQ(ReadFolder(kSeeds).size(), 3u);
  for (const std::string& seed : ReadFolder(kSeeds)) {
    auto spec = ReadHfTokenizerFile(seed);
    ASSERT_TRUE(spec.ok()) << spec.status();
    const auto tokenizer = Tokenizer::Create(*std::move(spec));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    RunOnce(seed);
  }
}

TEST(HfTokenizerFuzzSmoke, EveryPrefixIsRefused) {
  for (const std::string& seed : ReadFolder(kSeeds)) {
    const size_t end = seed.find_last_of('}');
    for (size_t size = 0; size <= end; ++size) {
      const auto spec = ReadHfTokenizerFile(seed.substr(0, size));
      ASSERT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << size;
    }
  }
}

TEST(HfTokenizerFuzzSmoke, Mutations) {
  const std::vector<std::string> seeds = ReadFolder(kSeeds);
  std::vector<std::string_view> pieces(std::begin(kJsonPieces), std::end(kJsonPieces));
  pieces.insert(pieces.end(), std::begin(kPatternPieces), std::end(kPatternPieces));
  TextMutator mutator(pieces);
  for (int i = 0; i < kMutations; ++i) RunOnce(mutator.Mutate(seeds[mutator.Below(seeds.size())]));
}

}  // namespace
}  // namespace acuity::engine::testing
