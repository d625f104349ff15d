// The tokens "<0x00>" to "<0xFF>": what a character without a token of its own becomes. Immutable;
// thread-safe.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/tokenizer/word_model.h"

namespace acuity::engine {

// The byte that "<0x0A>" spells.
std::optional<uint8_t> ParseByteToken(std::string_view spelling);

class ByteTokens {
 public:
  ByteTokens() { ids_.fill(kNoToken); }

  // Appends the tokens of a character's bytes; false, and nothing, if one of them has none.
  bool Append(std::string_view character, std::vector<TokenId>* ids) const;

 private:
  friend ByteTokens FindByteTokens(const TokenizerSpec& spec, const Vocabulary& vocabulary);
  std::array<TokenId, 256> ids_;
};

ByteTokens FindByteTokens(const TokenizerSpec& spec, const Vocabulary& vocabulary);

}  // namespace acuity::engine
