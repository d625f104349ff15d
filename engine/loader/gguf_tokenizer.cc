#include "engine/loader/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/loader/pre_tokenizers.h"
#include "engine/loader/status_util.h"
#include "engine/loader/token_index.h"

namespace acuity::engine {
namespace {

constexpr uint64_t kMaxNameBytes = 256;
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kKinds = "tokenizer.ggml.token_type";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";

// Control tokens that end a turn in some chat format, whatever the file says its EOS is.
constexpr std::string_view kEndOfTurn[] = {"<|im_end|>",      "<|endoftext|>", "<|eot_id|>",
                                           "<|eom_id|>",      "<end_of_turn>", "<|end|>",
                                           "<|end_of_text|>", "<|return|>"};

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

// What is put around a text where the file does not say.
struct BosAndEos {
  bool bos = false, eos = false;
};

absl::Status ReadPrefixAndSuffix(GgufMetadata* metadata, BosAndEos adds, TokenizerSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(adds.bos, metadata->Bool("tokenizer.ggml.add_bos_token", adds.bos));
  ACUITY_ASSIGN_OR_RETURN(adds.eos, metadata->Bool("tokenizer.ggml.add_eos_token", adds.eos));
  if (adds.bos && !spec->bos.has_value()) {
    return absl::InvalidArgumentError(
        "GGUF: tokenizer.ggml.add_bos_token is true, but bos_token_id is missing");
  }
  if (adds.eos && !spec->eos.has_value()) {
    return absl::InvalidArgumentError(
        "GGUF: tokenizer.ggml.add_eos_token is true, but eos_token_id is missing");
  }
  if (adds.bos) spec->prefix = {*spec->bos};
  if (adds.eos) spec->suffix = {*spec->eos};
  return absl::OkStatus();
}

// "left right": the first space that is not at the start separates, as no spelling has one.
absl::Status ReadMerges(GgufMetadata* metadata, TokenizerSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* merges,
                          metadata->Array(kMerges, GgufType::kString, 0, kMaxMerges));
  const TokenIndex index(*spec);
  spec->merges.reserve(merges->count);
  GgufStringWalker walker(*merges);
  for (uint64_t i = 0; i < merges->count; ++i) {
    const std::string_view merge = walker.Next();
    if (merge.size() > kMaxMergeBytes) {
      return InvalidArgument("GGUF: element ", i, " of ", kMerges, " has ", merge.size(),
                             " bytes, more than the limit of ", kMaxMergeBytes);
    }
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos) {
      return InvalidArgument("GGUF: element ", i, " of ", kMerges, ", ", QuoteForError(merge),
                             ", has no space between two tokens");
    }
    TokenId sides[2];
    for (int side = 0; side < 2; ++side) {
      const std::string_view text = side == 0 ? merge.substr(0, space) : merge.substr(space + 1);
      sides[side] = index.Find(text);
      if (sides[side] == TokenIndex::kNone) {
        return InvalidArgument("GGUF: element ", i, " of ", kMerges, ", ", QuoteForError(merge),
                               ": ", QuoteForError(text), " is not a token");
      }
    }
    spec->merges.push_back({sides[0], sides[1]});
  }
  return absl::OkStatus();
}

absl::Status ReadScores(GgufMetadata* metadata, TokenizerSpec* spec) {
  constexpr std::string_view kScores = "tokenizer.ggml.scores";
  const size_t count = spec->tokens.size();
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* scores,
                          metadata->Array(kScores, GgufType::kFloat32, count, count));
  spec->scores.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    float score = 0;
    std::memcpy(&score, scores->payload.data() + i * sizeof(score), sizeof(score));
    if (!std::isfinite(score)) {
      return InvalidArgument("GGUF: element ", i, " of ", kScores, " is not a finite number");
    }
    spec->scores.push_back(score);
  }
  return absl::OkStatus();
}

absl::Status ReadByteLevel(GgufMetadata* metadata, TokenizerSpec* spec, BosAndEos* adds) {
  ACUITY_ASSIGN_OR_RETURN(const std::string_view name,
                          metadata->String("tokenizer.ggml.pre", kMaxNameBytes));
  ACUITY_RETURN_IF_ERROR(SetPreTokenizer(name, spec, &adds->bos));
  spec->byte_level = true;
  return ReadMerges(metadata, spec);
}

// What the two kinds of SentencePiece models have in common with Gemma's: a visible space.
absl::Status SetMetaspace(GgufMetadata* metadata, TokenizerSpec* spec, bool* prefix) {
  ACUITY_ASSIGN_OR_RETURN(*prefix, metadata->Bool("tokenizer.ggml.add_space_prefix", true));
  spec->decoder.replacements = {{std::string(kMetaspace), " "}};
  spec->decoder.byte_fallback = spec->byte_fallback = true;
  spec->fuse_unknown = true;
  spec->unknown = spec->unk;
  const auto kind = std::find(spec->kinds.begin(), spec->kinds.end(), TokenKind::kUnknown);
  if (!spec->unknown.has_value() && kind != spec->kinds.end()) {
    spec->unknown = static_cast<TokenId>(kind - spec->kinds.begin());
  }
  return absl::OkStatus();
}

absl::Status ReadSpacesBecomeVisible(GgufMetadata* metadata, TokenizerSpec* spec) {
  bool prefix = false;
  ACUITY_RETURN_IF_ERROR(SetMetaspace(metadata, spec, &prefix));
  if (prefix) {
    spec->normaliser.push_back(
        {.kind = NormaliserStep::Kind::kPrepend, .content = std::string(kMetaspace)});
    spec->decoder.strip.assign(1, ' ');
    spec->decoder.max_strips = 1;
  }
  spec->normaliser.push_back({.kind = NormaliserStep::Kind::kReplace,
                              .pattern = {" ", false},
                              .content = std::string(kMetaspace)});
  return absl::OkStatus();
}

// Phi-3's control tokens take the white space behind them: its own tokenizer.json says so, the GGUF
// format cannot.
absl::Status MarkPhi3Tokens(GgufMetadata* metadata, TokenizerSpec* spec) {
  constexpr std::string_view kPlain[] = {"<unk>", "<s>", "<|endoftext|>"};
  ACUITY_ASSIGN_OR_RETURN(const std::string_view architecture,
                          metadata->String("general.architecture", kMaxNameBytes, ""));
  if (architecture != "phi3") return absl::OkStatus();
  for (size_t i = 0; i < spec->tokens.size(); ++i) {
    const bool plain =
        std::find(std::begin(kPlain), std::end(kPlain), spec->tokens[i]) != std::end(kPlain);
    if (spec->kinds[i] != TokenKind::kControl || plain) continue;
    spec->added.push_back({.id = static_cast<TokenId>(i), .takes_space_after = true});
  }
  return absl::OkStatus();
}

absl::Status ReadSentencePiece(GgufMetadata* metadata, TokenizerSpec* spec, BosAndEos* adds) {
  ACUITY_ASSIGN_OR_RETURN(const bool removes,
                          metadata->Bool("tokenizer.ggml.remove_extra_whitespaces", false));
  if (removes) {
    return InvalidArgument("GGUF: tokenizer.ggml.remove_extra_whitespaces is true; with ",
                           "tokenizer.ggml.model llama only false is supported");
  }
  ACUITY_RETURN_IF_ERROR(ReadSpacesBecomeVisible(metadata, spec));
  ACUITY_RETURN_IF_ERROR(MarkPhi3Tokens(metadata, spec));
  *adds = {.bos = true, .eos = false};
  return ReadScores(metadata, spec);
}

absl::Status ReadGemma4(GgufMetadata* metadata, TokenizerSpec* spec, BosAndEos* adds) {
  ACUITY_RETURN_IF_ERROR(ReadSpacesBecomeVisible(metadata, spec));
  *adds = {.bos = true, .eos = false};
  return ReadMerges(metadata, spec);
}

absl::Status ReadUnigram(GgufMetadata* metadata, TokenizerSpec* spec, BosAndEos* adds) {
  constexpr std::string_view kCharacterMap = "tokenizer.ggml.precompiled_charsmap";
  constexpr uint64_t kMaxCharacterMapBytes = 8 << 20;  // the largest known has 240 KB
  using Kind = NormaliserStep::Kind;
  bool prefix = false;
  ACUITY_RETURN_IF_ERROR(SetMetaspace(metadata, spec, &prefix));
  if (metadata->Has(kCharacterMap)) {
    ACUITY_ASSIGN_OR_RETURN(const GgufValue* map, metadata->Array(kCharacterMap, GgufType::kUint8,
                                                                  1, kMaxCharacterMapBytes));
    NormaliserStep step{.kind = Kind::kPrecompiled};
    step.content.assign(reinterpret_cast<const char*>(map->payload.data()), map->payload.size());
    spec->normaliser.push_back(std::move(step));
  }
  ACUITY_ASSIGN_OR_RETURN(const bool removes,
                          metadata->Bool("tokenizer.ggml.remove_extra_whitespaces", false));
  if (removes) {
    spec->normaliser.push_back({.kind = Kind::kStrip, .right = true});
    spec->normaliser.push_back(
        {.kind = Kind::kReplace, .pattern = {" {2,}", true}, .content = std::string(kMetaspace)});
  }
  AppendMetaspace(prefix ? PreTokenizerStep::Prefix::kAlways : PreTokenizerStep::Prefix::kNever,
                  kMetaspace, /*split=*/true, &spec->pre_tokenizer);
  if (prefix) spec->decoder.first_token_drops = std::string(kMetaspace);
  spec->model = TokenModelKind::kUnigram;
  *adds = {.bos = false, .eos = true};
  return ReadScores(metadata, spec);
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(GgufMetadata* metadata) {
  TokenizerSpec spec;
  ACUITY_ASSIGN_OR_RETURN(const std::string_view model,
                          metadata->String("tokenizer.ggml.model", kMaxNameBytes));
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* tokens,
                          metadata->Array(kTokens, GgufType::kString, 1, kMaxVocabulary));
  ACUITY_ASSIGN_OR_RETURN(const GgufValue* kinds,
                          metadata->Array(kKinds, GgufType::kInt32, tokens->count, tokens->count));
  ACUITY_ASSIGN_OR_RETURN(spec.tokens, ReadStrings(kTokens, *tokens, kMaxTokenBytes));
  ACUITY_ASSIGN_OR_RETURN(spec.kinds, ReadKinds(kKinds, *kinds));
  ACUITY_RETURN_IF_ERROR(ReadIds(metadata, &spec));
  BosAndEos adds;
  if (model == "gpt2") {
    ACUITY_RETURN_IF_ERROR(ReadByteLevel(metadata, &spec, &adds));
  } else if (model == "llama") {
    ACUITY_RETURN_IF_ERROR(ReadSentencePiece(metadata, &spec, &adds));
  } else if (model == "gemma4") {
    ACUITY_RETURN_IF_ERROR(ReadGemma4(metadata, &spec, &adds));
  } else if (model == "t5") {
    ACUITY_RETURN_IF_ERROR(ReadUnigram(metadata, &spec, &adds));
  } else {
    return InvalidArgument("GGUF: tokenizer.ggml.model is ", QuoteForError(model),
                           "; supported: gpt2, llama, gemma4, t5");
  }
  ACUITY_RETURN_IF_ERROR(ReadPrefixAndSuffix(metadata, adds, &spec));
  ACUITY_ASSIGN_OR_RETURN(const std::string_view chat_template,
                          metadata->String("tokenizer.chat_template", kMaxChatTemplateBytes, ""));
  spec.chat_template = std::string(chat_template);
  return spec;
}

}  // namespace acuity::engine
