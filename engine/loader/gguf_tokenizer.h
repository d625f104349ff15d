// Tokenizer metadata of a GGUF file -> TokenizerSpec.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/loader/gguf_metadata.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// The counts bound the memory: a std::string takes 32 bytes where the file has 8, so the worst file
// costs 16 + 32 MB besides its own text.
inline constexpr uint64_t kMaxVocabulary = 1 << 19;  // the largest known has 262144
inline constexpr uint64_t kMaxMerges = 1 << 20;      // the largest known has about 520000
inline constexpr uint64_t kMaxTokenBytes = 4096;     // of one token; real ones have < 300
inline constexpr uint64_t kMaxMergeBytes = 2 * kMaxTokenBytes + 1;
inline constexpr uint64_t kMaxChatTemplateBytes = 1 << 20;  // real ones have < 30 KB

// Of tokenizer.ggml.model gpt2 (byte-level BPE, split as tokenizer.ggml.pre says), llama
// (SentencePiece's BPE by scores), gemma4 (the same by merges) and t5 (unigram). Where a family's
// own tokenizer composes characters (NFC), so does this, although the file does not say so.
// InvalidArgument names the key, its value and the limit.
absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(GgufMetadata* metadata);

}  // namespace acuity::engine
