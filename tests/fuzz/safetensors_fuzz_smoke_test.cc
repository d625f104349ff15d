// What the ordinary suite runs of the fuzzer: the seeds, the inputs that fuzzing found worth
// keeping, and 20,000 seeded mutations, the same on every run.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "gtest/gtest.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/safetensors_fuzz.h"
#include "tests/fuzz/safetensors_seeds.h"

namespace acuity::engine::testing {
namespace {

constexpr char kCorpus[] = "tests/fuzz/corpus/safetensors";
constexpr int kMutations = 20000;
constexpr uint64_t kSeed = 1;

// In a heap block of exactly this size: ASan sees a byte too far.
void RunOnce(const Bytes& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  ASSERT_EQ(LLVMFuzzerTestOneInput(copy.get(), bytes.size()), 0);
}

TEST(SafetensorsFuzzSmoke, SeedsAndCorpus) {
  for (const Bytes& seed : SafetensorsSeeds()) RunOnce(seed);
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kCorpus)) {
    std::ifstream file(entry.path(), std::ios::binary);
    RunOnce(Bytes(std::istreambuf_iterator<char>(file), {}));
    ++count;
  }
  EXPECT_GT(count, 50);
}

TEST(SafetensorsFuzzSmoke, Mutations) {
  const std::vector<Bytes> seeds = SafetensorsSeeds();
  Mutator mutator(kSeed);
  for (int i = 0; i < kMutations; ++i) RunOnce(mutator.Mutate(seeds[mutator.Below(seeds.size())]));
}

}  // namespace
}  // namespace acuity::engine::testing
