#include "engine/loader/gguf_tokenizer.h"

#include <algorithm>
#include <cstring>

#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr uint64_t kMaxNameBytes = 256;

// Control tokens that end a turn in some chat format, whatever the file says its EOS is.
constexpr std::string_view kEndOfTurn[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>",
                                           "<end_of_turn>", "<|end|>"};

absl::StatusOr<std::vector<std::string>> ReadStrings(std::string_view key, const GgufValue& array,
                                                     uint64_t max_bytes) {
  std::vector<std::string> strings;
  strings.reserve(array.count);
  GgufStringWalker walker(array);
  for (uint64_t i = 0; i < array.count; ++i) {
    const std::string_view text = walker.Next();
    if (text.size() > max_bytes) {
      return InvalidArgument("GGUF: element ", i, " of ", key, " has ", text.size(),
                             " bytes, more than the limit of ", max_bytes);
    }
    strings.emplace_back(text);
  }
  return strings;
}

// The file numbers the kinds from 1, in the order of TokenKind.
absl::StatusOr<std::vector<TokenKind>> ReadKinds(std::string_view key, const GgufValue& array) {
  constexpr int32_t kFirst = 1;
  constexpr int32_t kLast = 6;
  static_assert(static_cast<int32_t>(TokenKind::kByte) == kLast - kFirst);
  std::vector<TokenKind> kinds(array.count);
  for (uint64_t i = 0; i < array.count; ++i) {
    int32_t kind = 0;
    std::memcpy(&kind, array.payload.data() + i * sizeof(kind), sizeof(kind));
    if (kind < kFirst || kind > kLast) {
      return InvalidArgument("GGUF: element ", i, " of ", key, " is ", kind, "; it must be from ",
                             kFirst, " to ", kLast);
    }
    kinds[i] = static_cast<TokenKind>(kind - kFirst);
  }
  return kinds;
}

// A token id, or nothing if the file does not have the key.
absl::StatusOr<std::optional<TokenId>> ReadId(GgufMetadata* metadata, std::string_view key,
                                              size_t vocabulary) {
  constexpr int64_t kAbsent = -1;
  ACUITY_ASSIGN_OR_RETURN(const int64_t id,
                          metadata->Integer(key, 0, static_cast<int64_t>(vocabulary) - 1, kAbsent));
  if (id == kAbsent) return std::optional<TokenId>();
  return std::optional<TokenId>(static_cast<TokenId>(id));
}

absl::Status ReadIds(GgufMetadata* metadata, TokenizerSpec* spec) {
  const size_t vocabulary = spec->tokens.size();
  ACUITY_ASSIGN_OR_RETURN(spec->bos, ReadId(metadata, "tokenizer.ggml.bos_token_id", vocabulary));
  ACUITY_ASSIGN_OR_RETURN(spec->eos, ReadId(metadata, "tokenizer.ggml.eos_token_id", vocabulary));
  ACUITY_ASSIGN_OR_RETURN(spec->unk,
                          ReadId(metadata, "tokenizer.ggml.unknown_token_id", vocabulary));
  ACUITY_ASSIGN_OR_RETURN(spec->pad,
                          ReadId(metadata, "tokenizer.ggml.padding_token_id", vocabulary));
  ACUITY_ASSIGN_OR_RETURN(const std::optional<TokenId> end_of_turn,
                          ReadId(metadata, "tokenizer.ggml.eot_token_id", vocabulary));
  ACUITY_ASSIGN_OR_RETURN(const std::optional<TokenId> end_of_message,
                          ReadId(metadata, "tokenizer.ggml.eom_token_id", vocabulary));
  ACUITY_ASSIGN_OR_RETURN(spec->add_bos, metadata->Bool("tokenizer.ggml.add_bos_token", false));
  ACUITY_ASSIGN_OR_RETURN(spec->add_eos, metadata->Bool("tokenizer.ggml.add_eos_token", false));
  if (spec->add_bos && !spec->bos.has_value()) {
    return absl::InvalidArgumentError(
        "GGUF: tokenizer.ggml.add_bos_token is true, but bos_token_id is missing");
  }
  if (spec->add_eos && !spec->eos.has_value()) {
    return absl::InvalidArgumentError(
        "GGUF: tokenizer.ggml.add_eos_token is true, but eos_token_id is missing");
  }

  std::vector<TokenId>& ends = spec->end_of_generation;
  for (const std::optional<TokenId>& id : {spec->eos, end_of_turn, end_of_message}) {
    if (id.has_value()) ends.push_back(*id);
  }
  for (size_t i = 0; i < vocabulary; ++i) {
    if (spec->kinds[i] == TokenKind::kControl &&
        std::find(std::begin(kEndOfTurn), std::end(kEndOfTurn), spec->tokens[i]) !=
            std::end(kEndOfTurn)) {
      ends.push_back(static_cast<TokenId>(i));
    }
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(GgufMetadata* metadata) {
  constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
  constexpr std::string_view kKinds = "tokenizer.ggml.token_type";
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  TokenizerSpec spec;
  ACUITY_ASSIGN_OR_RETURN(spec.model, metadata->String("tokenizer.ggml.model", kMaxNameBytes));
  ACUITY_ASSIGN_OR_RETURN(spec.pre_tokenizer,
                          metadata->String("tokenizer.ggml.pre", kMaxNameBytes, ""));

  ACUITY_ASSIGN_OR_RETURN(const GgufValue* tokens,
                          metadata->Array(kTokens, GgufType::kString, 1, kMaxVocabulary));
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* kinds,
                          metadata->Array(kKinds, GgufType::kInt32, tokens->count, tokens->count));
  ACUITY_ASSIGN_OR_RETURN(spec.tokens, ReadStrings(kTokens, *tokens, kMaxTokenBytes));
  ACUITY_ASSIGN_OR_RETURN(spec.kinds, ReadKinds(kKinds, *kinds));
  if (spec.model == "gpt2") {  // the other models have none
    ACUITY_ASSIGN_OR_RETURN(const GgufValue* merges,
                            metadata->Array(kMerges, GgufType::kString, 0, kMaxMerges));
    ACUITY_ASSIGN_OR_RETURN(spec.merges, ReadStrings(kMerges, *merges, kMaxMergeBytes));
  }
  ACUITY_RETURN_IF_ERROR(ReadIds(metadata, &spec));
  ACUITY_ASSIGN_OR_RETURN(spec.chat_template,
                          metadata->String("tokenizer.chat_template", kMaxChatTemplateBytes, ""));
  return spec;
}

}  // namespace acuity::engine
