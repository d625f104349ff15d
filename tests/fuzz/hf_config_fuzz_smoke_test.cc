// What the ordinary suite runs of the config.json fuzzer: the seeds, every prefix of them, and
// seeded mutations, the same on every run.
#include <set>

#include "engine/loader/hf_architectures.h"
#include "gtest/gtest.h"
#include "tests/fuzz/smoke.h"

namespace acuity::engine::testing {
namespace {

constexpr char kSeeds[] = "tests/fuzz/hf_config";
constexpr int kMutations = 20000;

TEST(HfConfigFuzzSmoke, SeedsAreOfEveryArchitecture) {
  std::set<std::string_view> seen;
  for (const std::string& seed : ReadFolder(kSeeds)) {
    const auto model = ReadHfModel(seed);
    ASSERT_TRUE(model.ok()) << model.status() << seed;
    seen.insert(model->architecture->model_type);
    RunOnce(seed);
  }
  EXPECT_EQ(seen.size(), HfArchitectures().size());
}

TEST(HfConfigFuzzSmoke, EveryPrefixIsRefused) {
  for (const std::string& seed : ReadFolder(kSeeds)) {
    const size_t end = seed.find_last_of('}');
    for (size_t size = 0; size <= end; ++size) {
      const auto model = ReadHfModel(std::string_view(seed).substr(0, size));
      ASSERT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << size;
    }
  }
}

TEST(HfConfigFuzzSmoke, Mutations) {
  const std::vector<std::string> seeds = ReadFolder(kSeeds);
  TextMutator mutator(kJsonPieces);
  for (int i = 0; i < kMutations; ++i) RunOnce(mutator.Mutate(seeds[mutator.Below(seeds.size())]));
}

}  // namespace
}  // namespace acuity::engine::testing
