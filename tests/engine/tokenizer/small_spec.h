// A small valid TokenizerSpec: all bytes, some merges, a few special tokens.
#pragma once

#include <algorithm>
#include <string>

#include "engine/base/check.h"
#include "engine/loader/pre_tokenizers.h"
#include "engine/tokenizer/tokenizer_spec.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine {

// GPT-2's character for a byte.
inline std::string ByteSpelling(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  std::string spelling;
  AppendUtf8(static_cast<uint32_t>(code), &spelling);
  return spelling;
}

inline std::string Spell(std::string_view bytes) {
  std::string spelling;
  for (const char c : bytes) spelling += ByteSpelling(static_cast<uint8_t>(c));
  return spelling;
}

inline void AddToken(std::string token, TokenKind kind, TokenizerSpec* spec) {
  spec->tokens.push_back(std::move(token));
  spec->kinds.push_back(kind);
}

inline void AddMerge(std::string_view left, std::string_view right, TokenizerSpec* spec) {
  const auto find = [spec](std::string_view bytes) {
    const auto it = std::find(spec->tokens.begin(), spec->tokens.end(), Spell(bytes));
    return static_cast<TokenId>(it - spec->tokens.begin());
  };
  spec->merges.push_back({find(left), find(right)});
  AddToken(Spell(left) + Spell(right), TokenKind::kNormal, spec);
}

inline constexpr TokenId kEndOfText = 0, kStart = 1, kEnd = 2, kUser = 3, kUserLong = 4,
                         kUnusedId = 5;
inline constexpr TokenId kFirstByte = 6;                  // the token of byte 0
inline constexpr TokenId kFirstMerge = kFirstByte + 256;  // "aa", then in order of SmallSpec

// `pre_tokenizer` as in tokenizer.ggml.pre.
inline TokenizerSpec SmallSpec(std::string_view pre_tokenizer = "smollm") {
  TokenizerSpec spec;
  spec.byte_level = true;
  bool adds_bos = false;
  ACUITY_CHECK(SetPreTokenizer(pre_tokenizer, &spec, &adds_bos).ok());
  AddToken("<|endoftext|>", TokenKind::kControl, &spec);
  AddToken("<|im_start|>", TokenKind::kControl, &spec);
  AddToken("<|im_end|>", TokenKind::kControl, &spec);
  AddToken("<user>", TokenKind::kUserDefined, &spec);
  AddToken("<user>s", TokenKind::kUserDefined, &spec);
  AddToken("<unused>", TokenKind::kUnused, &spec);
  for (int b = 0; b < 256; ++b) AddToken(ByteSpelling(b), TokenKind::kNormal, &spec);
  AddMerge("a", "a", &spec);
  AddMerge("aa", "aa", &spec);
  AddMerge("aaaa", "aaaa", &spec);
  AddMerge("h", "e", &spec);
  AddMerge("l", "l", &spec);
  AddMerge("ll", "o", &spec);
  AddMerge("he", "llo", &spec);
  AddMerge(" ", "hello", &spec);
  AddMerge(" ", " ", &spec);
  AddMerge("  ", "  ", &spec);
  AddMerge("1", "1", &spec);
  spec.bos = kStart;
  spec.eos = kEnd;
  spec.end_of_generation = {kEnd, kEndOfText};
  return spec;
}

}  // namespace acuity::engine
