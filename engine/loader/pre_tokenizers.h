// The ways of splitting text that families of byte-level tokenizers have in common.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// "▁", SentencePiece's visible space.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

// GPT-2's expression, which byte-level steps use where they name none.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

PreTokenizerStep SplitStep(std::string_view regex);
// What Metaspace does: one step, and a second that splits in front of each space.
void AppendMetaspace(PreTokenizerStep::Prefix prefix, std::string_view replacement, bool split,
                     std::vector<PreTokenizerStep>* steps);

// Sets normaliser, pre-tokenizer, whole_words and, where nothing else says so, whether BOS is put
// in front, to what `name`, of tokenizer.ggml.pre, stands for. InvalidArgument names the value and
// the supported ones.
absl::Status SetPreTokenizer(std::string_view name, TokenizerSpec* spec, bool* adds_bos);

}  // namespace acuity::engine
