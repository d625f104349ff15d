// What the ordinary suite runs of the fuzzer: 20,000 seeded mutations, the same on every run.
#include "gtest/gtest.h"
#include "tests/fuzz/gguf_seeds.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/smoke.h"

namespace acuity::engine::testing {
namespace {

constexpr int kMutations = 20000;
constexpr uint64_t kSeed = 1;

TEST(GgufFuzzSmoke, Seeds) {
  for (const Bytes& seed : GgufSeeds()) RunOnce(seed);
}

TEST(GgufFuzzSmoke, Mutations) {
  const std::vector<Bytes> seeds = GgufSeeds();
  Mutator mutator(kSeed);
  for (int i = 0; i < kMutations; ++i) RunOnce(mutator.Mutate(seeds[mutator.Below(seeds.size())]));
}

}  // namespace
}  // namespace acuity::engine::testing
