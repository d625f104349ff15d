// Finds the spellings of control and user-defined tokens in text. Immutable after the last Add;
// thread-safe.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/ids.h"
#include "engine/tokenizer/byte_trie.h"
#include "engine/tokenizer/text_run.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class AddedTokens {
 public:
  // Searching costs up to this many steps a byte; real spellings stay below 64.
  static constexpr size_t kMaxBytes = 256;

  // `text` is what to look for. InvalidArgument if it is empty, too long, or already another
  // token's.
  absl::Status Add(std::string_view text, const AddedToken& token, bool control);
  bool empty() const { return tokens_.empty(); }

  struct Found {
    size_t begin = 0, end = 0;  // with the white space that the token takes
    TokenId id = 0;
  };
  // Leftmost, then longest, without overlap. Control tokens are recognised only where their
  // spelling lies within one of the `trusted` runs (ascending, disjoint); elsewhere it is passed
  // over. REQUIRES: `text` is valid UTF-8.
  std::vector<Found> Find(std::string_view text, const std::vector<TextRun>& trusted) const;

 private:
  static constexpr int32_t kNone = -1;
  struct Token {
    AddedToken spec;
    bool control = false;
  };
  // The token, or kNone, whose spelling starts at `begin`, the longest; its end.
  int32_t Match(std::string_view text, size_t begin, size_t* end) const;

  std::vector<Token> tokens_;
  ByteTrie trie_;
  std::vector<int32_t> ends_ = {kNone};  // by trie node: the token that ends there
  bool starts_[256] = {};
  bool any_user_defined_ = false;
};

}  // namespace acuity::engine
