// What the ordinary suite runs of the fuzzer: 20,000 seeded mutations, the same on every run.
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>

#include "gtest/gtest.h"
#include "tests/fuzz/gguf_fuzz.h"
#include "tests/fuzz/gguf_seeds.h"

namespace acuity::engine::testing {
namespace {

constexpr int kMutations = 20000;
constexpr uint64_t kSeed = 1;
// Values that counts, lengths, dimensions and offsets break at.
constexpr uint64_t kInteresting[] = {0,
                                     1,
                                     13,
                                     0x7f,
                                     0xff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     uint64_t{1} << 32,
                                     uint64_t{1} << 62,
                                     uint64_t{1} << 63,
                                     UINT64_MAX - 31,
                                     UINT64_MAX};

class Mutator {
 public:
  // One to four changes: a bit, a byte, an interesting number of 4 or 8 bytes, a cut, a copied or a
  // removed stretch.
  Bytes Mutate(Bytes bytes) {
    for (uint64_t left = 1 + Below(4); left > 0 && bytes.size() > 16; --left) Change(&bytes);
    return bytes;
  }
  uint64_t Below(uint64_t limit) { return random_() % limit; }

 private:
  void Change(Bytes* bytes) {
    const size_t at = Below(bytes->size() - 8);
    const size_t length = std::min<size_t>(1 + Below(64), bytes->size() - at);
    const auto begin = bytes->begin() + static_cast<ptrdiff_t>(at);
    switch (Below(6)) {
      case 0:
        (*bytes)[at] ^= static_cast<uint8_t>(1u << Below(8));
        break;
      case 1:
        (*bytes)[at] = static_cast<uint8_t>(Below(256));
        break;
      case 2:
      case 3:
        std::memcpy(bytes->data() + at, &kInteresting[Below(std::size(kInteresting))],
                    Below(2) == 0 ? 4 : 8);
        break;
      case 4:
        if (Below(4) == 0) bytes->resize(at);
        break;
      default:
        if (Below(2) == 0) {
          bytes->erase(begin, begin + static_cast<ptrdiff_t>(length));
        } else {
          const Bytes copy(begin, begin + static_cast<ptrdiff_t>(length));
          const size_t to = Below(bytes->size());
          bytes->insert(bytes->begin() + static_cast<ptrdiff_t>(to), copy.begin(), copy.end());
        }
    }
  }

  std::mt19937_64 random_{kSeed};
};

// In a heap block of exactly this size: ASan sees a byte too far.
void RunOnce(const Bytes& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  ASSERT_EQ(LLVMFuzzerTestOneInput(copy.get(), bytes.size()), 0);
}

TEST(GgufFuzzSmoke, Seeds) {
  for (const Bytes& seed : GgufSeeds()) RunOnce(seed);
}

TEST(GgufFuzzSmoke, Mutations) {
  const std::vector<Bytes> seeds = GgufSeeds();
  Mutator mutator;
  for (int i = 0; i < kMutations; ++i) RunOnce(mutator.Mutate(seeds[mutator.Below(seeds.size())]));
}

}  // namespace
}  // namespace acuity::engine::testing
