// Text <-> token ids. Immutable after Create; thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/ids.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class Tokenizer {
 public:
  // InvalidArgument names the metadata field that is missing, contradictory or not supported.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(TokenizerSpec spec);
  ~Tokenizer();

  struct EncodeOptions {
    bool add_special = true;  // BOS/EOS if the model's configuration adds them
    bool parse_special =
        false;  // the spelling of a control token becomes that token; else it stays plain text
  };
  // User-defined tokens are recognised in any text. A byte without a token in the vocabulary (real
  // ones lack a few control characters) is left out.
  // Time linear in the text. InvalidArgument if `text` is not valid UTF-8 (with the byte offset).
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text, EncodeOptions options) const;

  // A piece of text that is trusted (template text: control tokens are recognised) or not (user
  // content).
  struct Segment {
    std::string text;
    bool trusted = false;
  };
  // Encodes a rendered chat: user content can never become a control token.
  absl::StatusOr<std::vector<TokenId>> EncodeSegments(std::span<const Segment> segments) const;

  // The bytes of one token ("" for control tokens unless `with_special`). Ids out of range: "".
  std::string_view TokenBytes(TokenId id, bool with_special = false) const;
  // Bytes of all tokens, invalid UTF-8 replaced by U+FFFD.
  std::string Decode(std::span<const TokenId> ids, bool with_special = false) const;

  int vocab_size() const;
  bool IsEndOfGeneration(TokenId id) const;
  const TokenizerSpec& spec() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Incremental detokeniser of one sequence. Not thread-safe. Never emits half a character.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}
  // The text that `id` completes: whole UTF-8 characters only; bytes that can never become valid
  // are U+FFFD.
  std::string Push(TokenId id);
  // What is left at the end: U+FFFD for an unfinished character, else "".
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // < 4 bytes between calls
};

}  // namespace acuity::engine
