// What turns words into tokens. Immutable after creation; thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/base/ids.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

inline constexpr TokenId kNoToken = -1;

// Spelling -> token; used tokens only. Views into the spec.
using Vocabulary = absl::flat_hash_map<std::string_view, TokenId>;

inline bool IsTextKind(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined;
}

// By id: whether a model may put the token together from text.
inline std::vector<bool> ModelTokens(const TokenizerSpec& spec) {
  std::vector<bool> in_model(spec.kinds.size());
  for (size_t i = 0; i < in_model.size(); ++i) in_model[i] = IsTextKind(spec.kinds[i]);
  for (const AddedToken& token : spec.added) {
    if (!token.in_model) in_model[token.id] = false;
  }
  return in_model;
}

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the tokens of each word. Time linear in the text, but for the logarithm of its longest
  // word. REQUIRES: words are valid UTF-8, each of less than 2^31 bytes.
  virtual void Encode(std::span<const std::string_view> words, std::vector<TokenId>* ids) const = 0;
};

// The model that spec.model says. No tokens but ModelTokens', those of bytes and spec.unknown are
// ever produced. InvalidArgument names the field of the spec, the value and the limit.
absl::StatusOr<std::unique_ptr<const WordModel>> CreateBytePairModel(const TokenizerSpec& spec,
                                                                     const Vocabulary& vocabulary);
absl::StatusOr<std::unique_ptr<const WordModel>> CreateUnigramModel(const TokenizerSpec& spec,
                                                                    const Vocabulary& vocabulary);

}  // namespace acuity::engine
