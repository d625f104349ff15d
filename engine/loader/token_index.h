// Spelling -> token, while a tokenizer is being read.
#pragma once

#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class TokenIndex {
 public:
  static constexpr TokenId kNone = -1;

  // Of equal spellings the first. REQUIRES: `spec` outlives this, and its tokens stay as they are.
  explicit TokenIndex(const TokenizerSpec& spec) {
    ids_.reserve(spec.tokens.size());
    for (size_t i = 0; i < spec.tokens.size(); ++i) {
      if (spec.kinds[i] != TokenKind::kUnused) {
        ids_.emplace(spec.tokens[i], static_cast<TokenId>(i));
      }
    }
  }

  TokenId Find(std::string_view spelling) const {
    const auto it = ids_.find(spelling);
    return it == ids_.end() ? kNone : it->second;
  }

 private:
  absl::flat_hash_map<std::string_view, TokenId> ids_;
};

}  // namespace acuity::engine
