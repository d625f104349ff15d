#include "engine/loader/hf_pipeline.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "engine/loader/gguf.h"
#include "engine/loader/pre_tokenizers.h"

namespace acuity::engine {
namespace {

using Behaviour = PreTokenizerStep::Behaviour;
using Prefix = PreTokenizerStep::Prefix;

// Sequences of sequences; real files have one level.
constexpr int kMaxDepth = 8;

absl::Status UnknownType(const JsonNode& node, const std::string& type, const char* supported) {
  return node.Error("is of type ", QuoteForError(type), "; supported: ", supported);
}

absl::Status CheckDepth(const JsonNode& node, int depth) {
  if (depth <= kMaxDepth) return absl::OkStatus();
  return node.Error("is nested deeper than ", kMaxDepth);
}

absl::StatusOr<TextPattern> ReadPattern(const JsonNode& node) {
  ACUITY_ASSIGN_OR_RETURN(const JsonNode pattern, node.Member("pattern"));
  ACUITY_RETURN_IF_ERROR(pattern.AllowOnly({"String", "Regex"}));
  if (pattern.value().size() != 1) return pattern.Error("must have either String or Regex");
  const bool is_regex = pattern.Has("Regex");
  ACUITY_ASSIGN_OR_RETURN(std::string text, pattern.String(is_regex ? "Regex" : "String"));
  return TextPattern{std::move(text), is_regex};
}

// One character, in UTF-8.
absl::StatusOr<std::string> ReadCharacter(const JsonNode& node, std::string_view key) {
  ACUITY_ASSIGN_OR_RETURN(std::string text, node.String(key));
  const auto starts = [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; };
  if (std::count_if(text.begin(), text.end(), starts) != 1) {
    return node.Error("has ", key, " ", QuoteForError(text), "; it must be one character");
  }
  return text;
}

// ---- normalizer ----

absl::Status ReadNormaliser(const JsonNode& node, int depth, TokenizerSpec* spec) {
  using Kind = NormaliserStep::Kind;
  ACUITY_RETURN_IF_ERROR(CheckDepth(node, depth));
  ACUITY_ASSIGN_OR_RETURN(const std::string type, node.String("type"));
  constexpr std::pair<const char*, Kind> kForms[] = {
      {"NFC", Kind::kNfc}, {"NFD", Kind::kNfd}, {"NFKC", Kind::kNfkc}, {"NFKD", Kind::kNfkd}};
  for (const auto& [name, kind] : kForms) {
    if (type != name) continue;
    spec->normaliser.push_back({.kind = kind});
    return node.AllowOnly({"type"});
  }
  NormaliserStep step;
  if (type == "Sequence") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "normalizers"}));
    return node.ForEach("normalizers", [&](const JsonNode& child) {
      return ReadNormaliser(child, depth + 1, spec);
    });
  }
  if (type == "Prepend") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "prepend"}));
    step.kind = Kind::kPrepend;
    ACUITY_ASSIGN_OR_RETURN(step.content, node.String("prepend"));
  } else if (type == "Replace") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "pattern", "content"}));
    step.kind = Kind::kReplace;
    ACUITY_ASSIGN_OR_RETURN(step.pattern, ReadPattern(node));
    ACUITY_ASSIGN_OR_RETURN(step.content, node.String("content"));
  } else if (type == "Strip") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "strip_left", "strip_right"}));
    step.kind = Kind::kStrip;
    ACUITY_ASSIGN_OR_RETURN(step.left, node.Bool("strip_left"));
    ACUITY_ASSIGN_OR_RETURN(step.right, node.Bool("strip_right"));
  } else if (type == "Precompiled") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "precompiled_charsmap"}));
    step.kind = Kind::kPrecompiled;
    ACUITY_ASSIGN_OR_RETURN(const std::string base64, node.String("precompiled_charsmap"));
    if (!absl::Base64Unescape(base64, &step.content)) {
      return node.Error("has a precompiled_charsmap that is not base64");
    }
  } else {
    return UnknownType(node, type,
                       "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Precompiled");
  }
  spec->normaliser.push_back(std::move(step));
  return absl::OkStatus();
}

// ---- pre_tokenizer ----

absl::StatusOr<Behaviour> ReadBehaviour(const JsonNode& node) {
  constexpr std::pair<std::string_view, Behaviour> kNames[] = {
      {"Removed", Behaviour::kRemoved},
      {"Isolated", Behaviour::kIsolated},
      {"MergedWithPrevious", Behaviour::kMergedWithPrevious},
      {"MergedWithNext", Behaviour::kMergedWithNext},
      {"Contiguous", Behaviour::kContiguous}};
  ACUITY_ASSIGN_OR_RETURN(const std::string name, node.String("behavior"));
  for (const auto& [known, behaviour] : kNames) {
    if (name == known) return behaviour;
  }
  return node.Error("has behavior ", QuoteForError(name), ", which is not supported");
}

absl::StatusOr<Prefix> ReadPrefix(const JsonNode& node) {
  ACUITY_ASSIGN_OR_RETURN(const bool adds, node.Bool("add_prefix_space", true));
  ACUITY_ASSIGN_OR_RETURN(const std::string scheme,
                          node.String("prepend_scheme", adds ? "always" : "never"));
  if (!adds && scheme != "never") {
    return node.Error("has add_prefix_space false, but prepend_scheme ", QuoteForError(scheme));
  }
  if (scheme == "always") return Prefix::kAlways;
  if (scheme == "first") return Prefix::kFirst;
  if (scheme == "never") return Prefix::kNever;
  return node.Error("has prepend_scheme ", QuoteForError(scheme),
                    "; supported: always, first, never");
}

absl::Status ReadByteLevel(const JsonNode& node, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  ACUITY_ASSIGN_OR_RETURN(const bool adds_prefix, node.Bool("add_prefix_space", true));
  ACUITY_ASSIGN_OR_RETURN(const bool uses_regex, node.Bool("use_regex", true));
  if (adds_prefix) {
    PreTokenizerStep step;
    step.kind = PreTokenizerStep::Kind::kPrefix;
    step.content = " ";
    spec->pre_tokenizer.push_back(std::move(step));
  }
  if (uses_regex) spec->pre_tokenizer.push_back(SplitStep(kGpt2Pattern));
  spec->byte_level = true;
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const JsonNode& node, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(node.AllowOnly(
      {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}));
  ACUITY_ASSIGN_OR_RETURN(const std::string replacement, ReadCharacter(node, "replacement"));
  ACUITY_ASSIGN_OR_RETURN(const Prefix prefix, ReadPrefix(node));
  ACUITY_ASSIGN_OR_RETURN(const bool split, node.Bool("split", true));
  AppendMetaspace(prefix, replacement, split, &spec->pre_tokenizer);
  return absl::OkStatus();
}

// The types that are one Split of another name. False if `type` is none of them.
absl::StatusOr<bool> ReadNamedSplit(const JsonNode& node, const std::string& type,
                                    PreTokenizerStep* step) {
  step->pattern.is_regex = true;
  if (type == "Split") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "pattern", "behavior", "invert"}));
    ACUITY_ASSIGN_OR_RETURN(step->pattern, ReadPattern(node));
    ACUITY_ASSIGN_OR_RETURN(step->behaviour, ReadBehaviour(node));
    ACUITY_ASSIGN_OR_RETURN(step->invert, node.Bool("invert", false));
  } else if (type == "Digits") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "individual_digits"}));
    ACUITY_ASSIGN_OR_RETURN(const bool individual, node.Bool("individual_digits", false));
    step->pattern.text = R"(\p{N})";
    step->behaviour = individual ? Behaviour::kIsolated : Behaviour::kContiguous;
  } else if (type == "Punctuation") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "behavior"}));
    step->pattern.text = R"([\p{P}$+<=>^`|~])";
    if (node.Has("behavior")) {
      ACUITY_ASSIGN_OR_RETURN(step->behaviour, ReadBehaviour(node));
    }
  } else if (type == "WhitespaceSplit") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type"}));
    step->pattern.text = R"(\s)";
    step->behaviour = Behaviour::kRemoved;
  } else if (type == "Whitespace") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type"}));
    step->pattern.text = R"(\w+|[^\w\s]+)";
    step->behaviour = Behaviour::kRemoved;
    step->invert = true;
  } else {
    return false;
  }
  return true;
}

absl::Status ReadPreTokenizer(const JsonNode& node, int depth, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(CheckDepth(node, depth));
  ACUITY_ASSIGN_OR_RETURN(const std::string type, node.String("type"));
  if (type == "Sequence") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "pretokenizers"}));
    return node.ForEach("pretokenizers", [&](const JsonNode& child) {
      return ReadPreTokenizer(child, depth + 1, spec);
    });
  }
  if (spec->byte_level) {
    return node.Error("is of type ", QuoteForError(type),
                      " and comes after ByteLevel, which must be the last");
  }
  if (type == "ByteLevel") return ReadByteLevel(node, spec);
  if (type == "Metaspace") return ReadMetaspace(node, spec);
  PreTokenizerStep step;
  ACUITY_ASSIGN_OR_RETURN(const bool known, ReadNamedSplit(node, type, &step));
  if (!known) {
    return UnknownType(node, type,
                       "Sequence, ByteLevel, Metaspace, Split, Digits, Punctuation, "
                       "WhitespaceSplit, Whitespace");
  }
  spec->pre_tokenizer.push_back(std::move(step));
  return absl::OkStatus();
}

// ---- decoder ----

// What has been done to the tokens so far: decoders may follow each other in this order only.
enum class DecoderStage : uint8_t { kTokens, kBytes, kFused, kDone };

absl::Status Advance(const JsonNode& node, DecoderStage at_most, DecoderStage next,
                     DecoderStage* stage) {
  if (*stage > at_most) return node.Error("comes too late in its sequence");
  *stage = next;
  return absl::OkStatus();
}

absl::Status ReadStripDecoder(const JsonNode& node, DecoderSpec* decoder) {
  constexpr int64_t kMaxStrips = 16;
  ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "content", "start", "stop"}));
  ACUITY_ASSIGN_OR_RETURN(decoder->strip, ReadCharacter(node, "content"));
  ACUITY_ASSIGN_OR_RETURN(const int64_t strips, node.Integer("start", 0, kMaxStrips));
  ACUITY_RETURN_IF_ERROR(node.Integer("stop", 0, 0).status());
  decoder->max_strips = static_cast<int>(strips);
  return absl::OkStatus();
}

absl::Status ReadDecoder(const JsonNode& node, int depth, DecoderStage* stage,
                         TokenizerSpec* spec) {
  using Stage = DecoderStage;
  DecoderSpec& decoder = spec->decoder;
  ACUITY_RETURN_IF_ERROR(CheckDepth(node, depth));
  ACUITY_ASSIGN_OR_RETURN(const std::string type, node.String("type"));
  if (type == "Sequence") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "decoders"}));
    return node.ForEach("decoders", [&](const JsonNode& child) {
      return ReadDecoder(child, depth + 1, stage, spec);
    });
  }
  if (type == "ByteLevel") {
    if (!spec->byte_level) {
      return node.Error("is ByteLevel, but the pre_tokenizer is not");
    }
    return Advance(node, Stage::kTokens, Stage::kDone, stage);
  }
  if (spec->byte_level) {
    return node.Error("is of type ", QuoteForError(type), ", but the pre_tokenizer is ByteLevel");
  }
  if (type == "Replace") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "pattern", "content"}));
    ACUITY_ASSIGN_OR_RETURN(TextPattern pattern, ReadPattern(node));
    if (pattern.is_regex) return node.Error("replaces a Regex; only a String is supported");
    ACUITY_ASSIGN_OR_RETURN(std::string content, node.String("content"));
    decoder.replacements.push_back({std::move(pattern.text), std::move(content)});
    return Advance(node, Stage::kTokens, Stage::kTokens, stage);
  }
  if (type == "Metaspace") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly(
        {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}));
    ACUITY_ASSIGN_OR_RETURN(const std::string replacement, ReadCharacter(node, "replacement"));
    ACUITY_ASSIGN_OR_RETURN(const Prefix prefix, ReadPrefix(node));
    if (prefix != Prefix::kNever) decoder.first_token_drops = replacement;
    decoder.replacements.push_back({replacement, " "});
    return Advance(node, Stage::kTokens, Stage::kTokens, stage);
  }
  if (type == "ByteFallback") {
    decoder.byte_fallback = true;
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type"}));
    return Advance(node, Stage::kTokens, Stage::kBytes, stage);
  }
  if (type == "Fuse") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type"}));
    return Advance(node, Stage::kBytes, Stage::kFused, stage);
  }
  if (type == "Strip") {
    if (*stage != Stage::kFused) return node.Error("is Strip, but does not follow Fuse");
    *stage = Stage::kDone;
    return ReadStripDecoder(node, &decoder);
  }
  return UnknownType(node, type,
                     "Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip");
}

// ---- post_processor ----

absl::StatusOr<std::vector<TokenId>> ReadTemplateToken(const JsonNode& node,
                                                       const JsonNode& special_tokens,
                                                       size_t vocabulary) {
  ACUITY_ASSIGN_OR_RETURN(const std::string name, node.String("id"));
  ACUITY_ASSIGN_OR_RETURN(const JsonNode token, special_tokens.Member(name));
  std::vector<TokenId> ids;
  ACUITY_RETURN_IF_ERROR(token.ForEach("ids", [&](const JsonNode& id) {
    if (!id.value().is_number_unsigned() || id.value().get<uint64_t>() >= vocabulary) {
      return id.Error("is ", id.value().dump(), "; it must be below the number of tokens, ",
                      vocabulary);
    }
    ids.push_back(id.value().get<TokenId>());
    return absl::OkStatus();
  }));
  return ids;
}

// Tokens in front of the text and behind it. A template in a sequence is put around what the ones
// before it made.
absl::Status ReadTemplate(const JsonNode& node, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "single", "pair", "special_tokens"}));
  ACUITY_ASSIGN_OR_RETURN(const JsonNode special_tokens, node.Member("special_tokens"));
  std::vector<TokenId> before, after;
  bool seen_text = false;
  ACUITY_RETURN_IF_ERROR(node.ForEach("single", [&](const JsonNode& piece) -> absl::Status {
    ACUITY_RETURN_IF_ERROR(piece.AllowOnly({"SpecialToken", "Sequence"}));
    if (piece.Has("Sequence")) {
      if (seen_text) return piece.Error("puts the text in a second time");
      seen_text = true;
      return absl::OkStatus();
    }
    ACUITY_ASSIGN_OR_RETURN(const JsonNode token, piece.Member("SpecialToken"));
    ACUITY_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                            ReadTemplateToken(token, special_tokens, spec->tokens.size()));
    std::vector<TokenId>& side = seen_text ? after : before;
    side.insert(side.end(), ids.begin(), ids.end());
    return absl::OkStatus();
  }));
  if (!seen_text) return node.Error("has a single without a Sequence");
  spec->prefix.insert(spec->prefix.begin(), before.begin(), before.end());
  spec->suffix.insert(spec->suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonNode& node, int depth, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(CheckDepth(node, depth));
  ACUITY_ASSIGN_OR_RETURN(const std::string type, node.String("type"));
  if (type == "Sequence") {
    ACUITY_RETURN_IF_ERROR(node.AllowOnly({"type", "processors"}));
    return node.ForEach("processors", [&](const JsonNode& child) {
      return ReadPostProcessor(child, depth + 1, spec);
    });
  }
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets, not tokens
  if (type == "TemplateProcessing") return ReadTemplate(node, spec);
  return UnknownType(node, type, "Sequence, ByteLevel, TemplateProcessing");
}

}  // namespace

absl::Status ReadHfPipeline(const JsonNode& root, TokenizerSpec* spec) {
  if (root.Has("normalizer")) {
    ACUITY_ASSIGN_OR_RETURN(const JsonNode node, root.Member("normalizer"));
    ACUITY_RETURN_IF_ERROR(ReadNormaliser(node, 0, spec));
  }
  if (root.Has("pre_tokenizer")) {
    ACUITY_ASSIGN_OR_RETURN(const JsonNode node, root.Member("pre_tokenizer"));
    ACUITY_RETURN_IF_ERROR(ReadPreTokenizer(node, 0, spec));
  }
  ACUITY_ASSIGN_OR_RETURN(const JsonNode decoder, root.Member("decoder"));
  DecoderStage stage = DecoderStage::kTokens;
  ACUITY_RETURN_IF_ERROR(ReadDecoder(decoder, 0, &stage, spec));
  if (spec->byte_level && stage != DecoderStage::kDone) {
    return decoder.Error("is not ByteLevel, but the pre_tokenizer is");
  }
  if (!root.Has("post_processor")) return absl::OkStatus();
  ACUITY_ASSIGN_OR_RETURN(const JsonNode node, root.Member("post_processor"));
  return ReadPostProcessor(node, 0, spec);
}

}  // namespace acuity::engine
