// Byte-pair merging of one word, lowest rank first, leftmost first. Immutable after Create;
// thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/base/ids.h"

namespace acuity::engine {

class BytePairMerger {
 public:
  // Merges of equal rank go from left to right, as if they were one.
  struct Merge {
    TokenId left, right, result;
    int32_t rank;  // >= 0
  };
  // Reusable memory of Apply, owned by one thread.
  struct Scratch {
    struct Symbol {
      TokenId id;
      int32_t previous, next;  // positions, or -1
      int32_t rank;            // of the merge with the next symbol, or -1
      TokenId result;          // of that merge
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;  // rank << 32 | position
    uint64_t steps = 0;          // heap entries handled so far: what a test of linearity counts
  };

  // InvalidArgument if a pair occurs twice.
  static absl::StatusOr<BytePairMerger> Create(const std::vector<Merge>& merges);

  // Appends what is left of the tokens of a word. O(n log n). REQUIRES: word.size() < 2^31.
  void Apply(std::span<const TokenId> word, Scratch* scratch, std::vector<TokenId>* out) const;

 private:
  struct Merged {
    int32_t rank;
    TokenId result;
  };
  static uint64_t Key(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  void Queue(int32_t position, Scratch* scratch) const;

  absl::flat_hash_map<uint64_t, Merged> merges_;
};

}  // namespace acuity::engine
