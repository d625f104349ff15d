// A tokenizer as data, as a model file describes it. Filled by engine/loader, read by Tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/ids.h"

namespace acuity::engine {

enum class TokenKind : uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct TokenizerSpec {
  std::string model;                // "gpt2": byte-level BPE
  std::string pre_tokenizer;        // "smollm", "gpt2", "llama-bpe", "qwen2", ...
  std::vector<std::string> tokens;  // by id; byte-level alphabet for normal tokens
  std::vector<TokenKind> kinds;     // by id, same length
  std::vector<std::string> merges;  // "left right", by rank
  std::optional<TokenId> bos, eos, unk, pad;
  std::vector<TokenId> end_of_generation;  // eos and its like (<|im_end|>)
  bool add_bos = false;
  bool add_eos = false;
  std::string chat_template;  // Jinja; empty if the model has none
};

}  // namespace acuity::engine
