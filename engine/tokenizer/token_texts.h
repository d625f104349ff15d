// The text of every token. Immutable after Create; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/ids.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class TokenTexts {
 public:
  // REQUIRES: spec.kinds.size() == spec.tokens.size(). InvalidArgument if the texts have more than
  // 4 GiB.
  static absl::StatusOr<TokenTexts> Create(const TokenizerSpec& spec);

  // Not always whole characters. REQUIRES: 0 <= id < spec.tokens.size().
  std::string_view Get(TokenId id) const {
    return std::string_view(bytes_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }

 private:
  std::string bytes_;              // of all tokens
  std::vector<uint32_t> offsets_;  // [vocab + 1] into bytes_
};

// The text of a token as TokenTexts has it, or, with `first`, at the start of a text.
std::string TokenText(const TokenizerSpec& spec, TokenId id, bool first);

}  // namespace acuity::engine
