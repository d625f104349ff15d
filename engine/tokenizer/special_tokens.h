// Finds the spellings of control and user-defined tokens in text. Immutable after Create;
// thread-safe.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "engine/base/ids.h"

namespace acuity::engine {

class SpecialTokens {
 public:
  // Searching costs up to this many steps a byte; real spellings stay below 64.
  static constexpr size_t kMaxBytes = 256;

  // InvalidArgument if `text` is empty or too long.
  absl::Status Add(std::string_view text, TokenId id, bool control);

  struct Found {
    size_t begin = 0, end = 0;
    TokenId id = 0;
  };
  // Bytes [begin, end) of the text are trusted: control tokens are recognised if they lie within
  // such a run.
  struct Run {
    size_t begin = 0, end = 0;
  };
  // Leftmost, then longest. `trusted` is ascending and disjoint. User-defined tokens are found
  // anywhere.
  std::vector<Found> Find(std::string_view text, const std::vector<Run>& trusted) const;

 private:
  struct Node {
    TokenId id = -1;
    bool control = false;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
  bool starts_[256] = {};
  bool any_user_defined_ = false;
};

}  // namespace acuity::engine
