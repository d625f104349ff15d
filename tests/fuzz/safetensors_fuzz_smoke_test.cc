// What the ordinary suite runs of the fuzzer: the seeds, the inputs that fuzzing found worth
// keeping, and 20,000 seeded mutations, the same on every run.
#include "gtest/gtest.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/safetensors_seeds.h"
#include "tests/fuzz/smoke.h"

namespace acuity::engine::testing {
namespace {

constexpr char kCorpus[] = "tests/fuzz/corpus/safetensors";
constexpr int kMutations = 20000;
constexpr uint64_t kSeed = 1;

TEST(SafetensorsFuzzSmoke, SeedsAndCorpus) {
  for (const Bytes& seed : SafetensorsSeeds()) RunOnce(seed);
  const std::vector<std::string> corpus = ReadFolder(kCorpus);
  for (const std::string& file : corpus) RunOnce(file);
  EXPECT_GT(corpus.size(), 50u);
}

TEST(SafetensorsFuzzSmoke, Mutations) {
  const std::vector<Bytes> seeds = SafetensorsSeeds();
  Mutator mutator(kSeed);
  for (int i = 0; i < kMutations; ++i) RunOnce(mutator.Mutate(seeds[mutator.Below(seeds.size())]));
}

}  // namespace
}  // namespace acuity::engine::testing
