// The text of every token. Immutable after Create; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/base/ids.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class TokenTexts {
 public:
  using Spellings = absl::flat_hash_map<TokenId, std::string>;

  // `spellings`: of tokens that are spelled otherwise than spec.tokens has them, because they are
  // looked for in normalised text. InvalidArgument if the texts have more than 4 GiB. REQUIRES:
  // *spec outlives this; kinds.size() == tokens.size().
  static absl::StatusOr<TokenTexts> Create(const TokenizerSpec* spec, Spellings spellings);

  // Not always whole characters. REQUIRES: 0 <= id < spec.tokens.size().
  std::string_view Get(TokenId id) const {
    return std::string_view(bytes_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  // The same at the start of a text.
  std::string GetFirst(TokenId id) const { return Make(id, /*first=*/true); }

 private:
  std::string Make(TokenId id, bool first) const;

  const TokenizerSpec* spec_ = nullptr;
  Spellings spellings_;
  std::string bytes_;              // of all tokens
  std::vector<uint32_t> offsets_;  // [vocab + 1] into bytes_
};

}  // namespace acuity::engine
