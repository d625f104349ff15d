// What the ordinary suite runs of a fuzzer: seeded mutations, the same on every run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

namespace acuity::engine::testing {

class Mutator {
 public:
  using Bytes = std::vector<uint8_t>;

  explicit Mutator(uint64_t seed) : random_(seed) {}

  // One to four changes: a bit, a byte, an interesting number of 4 or 8 bytes, a cut, a copied or a
  // removed stretch.
  Bytes Mutate(Bytes bytes) {
    for (uint64_t left = 1 + Below(4); left > 0 && bytes.size() > 16; --left) Change(&bytes);
    return bytes;
  }
  uint64_t Below(uint64_t limit) { return random_() % limit; }

 private:
  // Values that counts, lengths, dimensions and offsets break at.
  static constexpr uint64_t kInteresting[] = {0,
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

  std::mt19937_64 random_;
};

}  // namespace acuity::engine::testing
