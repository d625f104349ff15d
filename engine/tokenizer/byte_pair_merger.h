// Byte-pair merging of one word, lowest rank first, leftmost first. Immutable after Create;
// thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/base/ids.h"

namespace acuity::engine {

inline constexpr TokenId kNoToken = -1;

class BytePairMerger {
 public:
  // A merge by token ids; its rank is its place in the list.
  struct Merge {
    TokenId left, right, result;
  };
  // Reusable memory of Apply, owned by one thread.
  struct Scratch {
    struct Symbol {
      TokenId id;
      int32_t previous, next;  // positions, or -1
      int32_t rank;            // of the merge with the next symbol, or -1
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;  // rank << 32 | position
    uint64_t steps = 0;          // heap entries handled so far: what a test of linearity counts
  };

  // `byte_ids` is the token of each byte, or kNoToken: such a byte is left out, as the reference
  // tokenizers do. InvalidArgument if a pair occurs twice.
  static absl::StatusOr<BytePairMerger> Create(std::array<TokenId, 256> byte_ids,
                                               const std::vector<Merge>& merges);

  // Appends the tokens of `word`. O(n log n). REQUIRES: word.size() < 2^31.
  void Apply(std::string_view word, Scratch* scratch, std::vector<TokenId>* out) const;

 private:
  int32_t Rank(TokenId left, TokenId right) const {
    const auto it = ranks_.find(Key(left, right));
    return it == ranks_.end() ? -1 : it->second;
  }
  static uint64_t Key(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  void Queue(int32_t position, Scratch* scratch) const;

  std::array<TokenId, 256> byte_ids_{};
  absl::flat_hash_map<uint64_t, int32_t> ranks_;
  std::vector<TokenId> results_;  // by rank
};

}  // namespace acuity::engine
