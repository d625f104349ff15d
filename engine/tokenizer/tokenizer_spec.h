// A tokenizer as data: what a model file describes, and all that Tokenizer needs. Filled by
// engine/loader.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/ids.h"

namespace acuity::engine {

// kNormal: a piece of text. kControl: never made from text that is not trusted, and without text of
// its own. kUserDefined: found in any text before the model sees it. kByte: one byte, "<0x0A>".
// kUnused: no text, an id that nothing yields.
enum class TokenKind : uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

// A literal, or a regular expression in the syntax that regex.h reads.
struct TextPattern {
  std::string text;
  bool is_regex = false;
};

// One step on the text before it is split into words.
struct NormaliserStep {
  enum class Kind : uint8_t {
    kNfc,          // Unicode's composed form; kNfkc also folds compatibility characters
    kNfd,          // Unicode's decomposed form; kNfkd likewise
    kNfkc,         //
    kNfkd,         //
    kPrepend,      // `content` in front of a text that is not empty
    kReplace,      // every `pattern` by `content`
    kStrip,        // white space at the start (`left`) and the end (`right`)
    kPrecompiled,  // SentencePiece's character map, in `content`
  };
  Kind kind = Kind::kNfc;
  TextPattern pattern;
  std::string content;
  bool left = false, right = false;
};

// One step that splits text into words, which the model then never crosses.
struct PreTokenizerStep {
  enum class Kind : uint8_t {
    kSplit,      // at every `pattern`
    kMetaspace,  // spaces become `content`; `prefix` says where one more is put in front
    kPrefix,     // `content` in front of every word that does not start with it
  };
  // What happens to a match of kSplit; with `invert`, to what lies between matches.
  enum class Behaviour : uint8_t {
    kRemoved,
    kIsolated,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous,  // neighbours are one word
  };
  enum class Prefix : uint8_t { kNever, kFirst, kAlways };  // kFirst: only at the text's start

  Kind kind = Kind::kSplit;
  TextPattern pattern;
  Behaviour behaviour = Behaviour::kIsolated;
  bool invert = false;
  std::string content;
  Prefix prefix = Prefix::kNever;
};

// How tokens become text again.
struct DecoderSpec {
  struct Replacement {
    std::string from, to;
  };
  std::vector<Replacement> replacements;  // in each token, in order
  bool byte_fallback = false;             // a kByte token is its byte, not its spelling
  // At the start of a text, but not where generation goes on after a prompt: `strip` is removed up
  // to `max_strips` times, or `first_token_drops` wherever it is in the first token.
  std::string strip;
  int max_strips = 0;
  std::string first_token_drops;
};

enum class TokenModelKind : uint8_t { kBytePair, kUnigram };

struct AddedToken {  // of a control or user-defined token
  TokenId id = 0;
  bool takes_space_before = false, takes_space_after = false;
  bool whole_word = false;  // not beside a letter, mark, digit or connector
  bool normalised = false;  // looked for in normalised text, itself normalised
  bool in_model = true;     // else it is only ever found as itself, never put together by the model
};

struct TokenizerSpec {
  std::vector<std::string> tokens;  // by id; empty for an unused id
  std::vector<TokenKind> kinds;     // by id, same length
  std::vector<AddedToken> added;    // control and user-defined tokens that are not plain spellings

  std::vector<NormaliserStep> normaliser;
  std::vector<PreTokenizerStep> pre_tokenizer;
  TokenModelKind model = TokenModelKind::kBytePair;
  bool byte_level = false;     // kBytePair: tokens are spelled in GPT-2's alphabet of bytes
  bool byte_fallback = false;  // a character without a token becomes its bytes' kByte tokens
  bool whole_words = false;  // kBytePair: a word that is a token is that token, whatever the merges
  std::optional<TokenId> unknown;  // what a character without a token becomes; else it is left out
  bool fuse_unknown = false;       // neighbouring unknown characters are one
  struct Merge {
    TokenId left = 0, right = 0;
  };
  // kBytePair: by rank. None: every two tokens that make a token merge, the highest score first.
  std::vector<Merge> merges;
  std::vector<double> scores;  // by id: kUnigram's ln p, or what orders merges
  DecoderSpec decoder;

  std::optional<TokenId> bos, eos, unk, pad;  // what chat templates know by name
  std::vector<TokenId> end_of_generation;     // eos and its like (<|im_end|>)
  std::vector<TokenId> prefix, suffix;        // around every text: BOS, EOS
  std::string chat_template;                  // Jinja; empty if the model has none
};

}  // namespace acuity::engine
