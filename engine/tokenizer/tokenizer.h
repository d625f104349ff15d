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
  // InvalidArgument names the field of the spec that is missing, contradictory or not supported.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(TokenizerSpec spec);
  ~Tokenizer();

  struct EncodeOptions {
    bool add_special = true;  // the spec's prefix and suffix: BOS, EOS
    // The spelling of a control token becomes that token; else it stays plain text.
    bool parse_special = false;
  };
  // User-defined tokens are recognised in any text. A character without a token, in a vocabulary
  // without one for what is unknown, is left out.
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
  // The text of all tokens from its start, invalid UTF-8 replaced by U+FFFD. What StreamDecoder
  // makes of them, put together.
  std::string Decode(std::span<const TokenId> ids, bool with_special = false) const;

  int vocab_size() const;
  bool IsEndOfGeneration(TokenId id) const;
  const TokenizerSpec& spec() const;

 private:
  friend class StreamDecoder;
  bool Shows(TokenId id, bool with_special) const;

  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Incremental detokeniser of one sequence. Not thread-safe. Never emits half a character.
class StreamDecoder {
 public:
  // Some families write a space in front of every text and take it away again when they decode: at
  // the start of a text, that is, not where generation goes on after a prompt.
  enum class From : uint8_t { kStart, kPrompt };
  explicit StreamDecoder(const Tokenizer* tokenizer, From from = From::kPrompt);
  // The text that `id` completes: whole UTF-8 characters only; bytes that can never become valid
  // are U+FFFD.
  std::string Push(TokenId id);
  // What is left at the end: U+FFFD for an unfinished character, else "".
  std::string Finish();

 private:
  friend class Tokenizer;
  std::string Take(TokenId id);  // the same for a control token: its spelling
  std::string Strip(std::string text);

  const Tokenizer* tokenizer_;
  std::string pending_;  // < 4 bytes between calls
  bool first_ = false;   // the next token is the text's first, and that matters
  int strips_left_ = 0;
};

}  // namespace acuity::engine
