#include "engine/loader/hf_tokenizer_file.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/loader/gguf_tokenizer.h"
#include "engine/loader/hf_pipeline.h"
#include "engine/loader/token_index.h"

namespace acuity::engine {
namespace {

// Deeper than any real file; the parser would go on until memory ends.
constexpr int kMaxJsonDepth = 64;
// Each is compared with those before it. The largest known file has 6,415.
constexpr size_t kMaxAddedTokens = 16384;

// The bulk of the file, model.vocab and model.merges, taken out while it is parsed: as JSON values
// it would cost ten times its text.
class Bulk {
 public:
  struct Entry {
    std::string token;
    int64_t id = 0;    // BPE
    double score = 0;  // Unigram: id is its place
  };
  struct Merge {
    std::string left, right;
  };

  // nlohmann's parser callback. False: do not keep.
  bool Take(int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (event == Event::key) {
      if (depth > kMaxJsonDepth) return Fail(Concat("is nested deeper than ", kMaxJsonDepth));
      keys_.resize(static_cast<size_t>(depth));
      keys_.back() = value.get<std::string>();
      return !(InSection(depth, 3) && section_ == Section::kVocab);
    }
    if (event == Event::array_start || event == Event::object_start) {
      if (depth > kMaxJsonDepth) return Fail(Concat("is nested deeper than ", kMaxJsonDepth));
      keys_.resize(static_cast<size_t>(depth));
      if (InSection(depth, 3)) strings_.clear(), numbers_.clear();
      return true;
    }
    if (event == Event::value) {
      keys_.resize(std::max(keys_.size(), static_cast<size_t>(depth)));
      if (InSection(depth, 4)) return TakePart(value);
      if (!InSection(depth, 3)) return true;
      return section_ == Section::kVocab ? TakeBpeEntry(value) : TakeLegacyMerge(value);
    }
    if (event == Event::array_end && InSection(depth, 3)) return TakePair();
    return true;
  }

  const std::string& error() const { return error_; }

  std::vector<Entry> vocab;
  std::vector<Merge> merges;

 private:
  enum class Section : uint8_t { kNone, kVocab, kMerges };

  // Whether this is `level` deep, within one of the two lists; sets section_.
  bool InSection(int depth, int level) {
    if (depth != level || keys_.size() < 2 || keys_[0] != "model") return false;
    section_ = keys_[1] == "vocab"    ? Section::kVocab
               : keys_[1] == "merges" ? Section::kMerges
                                      : Section::kNone;
    return section_ != Section::kNone;
  }

  bool Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }

  bool TakeBpeEntry(const Json& value) {
    const std::string& token = keys_[2];
    if (vocab.size() == kMaxVocabulary) {
      return Fail(Concat("model.vocab has more than ", kMaxVocabulary, " tokens"));
    }
    if (token.size() > kMaxTokenBytes) {
      return Fail(Concat("model.vocab has a token of ", token.size(), " bytes, more than ",
                         kMaxTokenBytes));
    }
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxVocabulary) {
      return Fail(Concat("model.vocab: the id of ", QuoteForError(token), " is ", value.dump(),
                         "; it must be an integer from 0 to ", kMaxVocabulary - 1));
    }
    vocab.push_back({token, value.get<int64_t>(), 0});
    return true;  // its key was not kept, so it is not either
  }

  bool TakeLegacyMerge(const Json& value) {
    if (!value.is_string()) {
      return Fail(Concat("model.merges[", merges.size(), "] is of type ", value.type_name(),
                         "; it must be string, or array of two strings"));
    }
    const std::string text = value.get<std::string>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail(Concat("model.merges[", merges.size(), "] is ", QuoteForError(text),
                         "; it must be two tokens with one space between them"));
    }
    return AddMerge(text.substr(0, space), text.substr(space + 1));
  }

  bool AddMerge(std::string left, std::string right) {
    if (merges.size() == kMaxMerges) {
      return Fail(Concat("model.merges has more than ", kMaxMerges, " entries"));
    }
    merges.push_back({std::move(left), std::move(right)});
    return false;
  }

  bool TakePart(const Json& value) {
    if (value.is_string()) {
      strings_.push_back(value.get<std::string>());
    } else if (value.is_number()) {
      numbers_.push_back(value.get<double>());
    } else {
      strings_.resize(3);  // fits neither list
    }
    if (strings_.size() + numbers_.size() > 3) strings_.resize(3), numbers_.clear();
    return false;
  }

  // ["left", "right"] or ["token", score].
  bool TakePair() {
    if (section_ == Section::kMerges) {
      if (strings_.size() != 2 || !numbers_.empty()) {
        return Fail(Concat("model.merges[", merges.size(), "] is not an array of two strings"));
      }
      return AddMerge(std::move(strings_[0]), std::move(strings_[1]));
    }
    if (strings_.size() != 1 || numbers_.size() != 1 || !std::isfinite(numbers_[0])) {
      return Fail(Concat("model.vocab[", vocab.size(), "] is not [token, finite score]"));
    }
    if (vocab.size() == kMaxVocabulary) {
      return Fail(Concat("model.vocab has more than ", kMaxVocabulary, " tokens"));
    }
    if (strings_[0].size() > kMaxTokenBytes) {
      return Fail(Concat("model.vocab[", vocab.size(), "] has ", strings_[0].size(),
                         " bytes, more than ", kMaxTokenBytes));
    }
    const int64_t id = static_cast<int64_t>(vocab.size());
    vocab.push_back({std::move(strings_[0]), id, numbers_[0]});
    return false;
  }

  std::vector<std::string> keys_;  // of the objects that are open, by depth; "" in an array
  Section section_ = Section::kNone;
  std::vector<std::string> strings_;  // of the innermost pair
  std::vector<double> numbers_;
  std::string error_;
};

// Ids need not be without gaps: those that are missing are unused.
absl::Status PlaceTokens(Bulk* bulk, TokenizerSpec* spec) {
  if (bulk->vocab.empty()) return InvalidArgument("model.vocab has no tokens");
  int64_t size = 0;
  for (const Bulk::Entry& entry : bulk->vocab) size = std::max(size, entry.id + 1);
  spec->tokens.resize(static_cast<size_t>(size));
  spec->kinds.assign(static_cast<size_t>(size), TokenKind::kUnused);
  for (Bulk::Entry& entry : bulk->vocab) {
    const size_t id = static_cast<size_t>(entry.id);
    if (entry.token.empty()) return InvalidArgument("model.vocab: token ", id, " is empty");
    if (spec->kinds[id] != TokenKind::kUnused) {
      return InvalidArgument("model.vocab: ", QuoteForError(spec->tokens[id]), " and ",
                             QuoteForError(entry.token), " have the same id, ", id);
    }
    spec->tokens[id] = std::move(entry.token);
    spec->kinds[id] = TokenKind::kNormal;
  }
  const TokenIndex index(*spec);
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    if (spec->kinds[id] == TokenKind::kUnused) continue;
    const TokenId first = index.Find(spec->tokens[id]);
    if (first != static_cast<TokenId>(id)) {
      return InvalidArgument("model.vocab: ", QuoteForError(spec->tokens[id]), " is token ", first,
                             " and token ", id);
    }
  }
  return absl::OkStatus();
}

absl::Status PlaceMerges(const Bulk& bulk, TokenizerSpec* spec) {
  const TokenIndex index(*spec);
  spec->merges.reserve(bulk.merges.size());
  for (size_t i = 0; i < bulk.merges.size(); ++i) {
    const auto& [left, right] = bulk.merges[i];
    const TokenizerSpec::Merge merge{index.Find(left), index.Find(right)};
    const std::string joined = left + right;
    const std::pair<const std::string*, TokenId> parts[] = {
        {&left, merge.left}, {&right, merge.right}, {&joined, index.Find(joined)}};
    for (const auto& [text, id] : parts) {
      if (id == TokenIndex::kNone) {
        return InvalidArgument("model.merges[", i, "]: ", QuoteForError(*text),
                               " is no token of model.vocab");
      }
    }
    spec->merges.push_back(merge);
  }
  return absl::OkStatus();
}

absl::Status RefuseUnlessEmpty(const JsonNode& model, const char* key) {
  ACUITY_ASSIGN_OR_RETURN(const std::string text, model.String(key, ""));
  if (text.empty()) return absl::OkStatus();
  return model.Error("has ", key, " ", QuoteForError(text), "; only none is supported");
}

absl::Status ReadBpe(const JsonNode& model, Bulk* bulk, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(model.AllowOnly(
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  if (model.Has("dropout") && model.value()["dropout"] != 0) {
    return model.Error("has dropout ", model.value()["dropout"].dump(), "; only none is supported");
  }
  ACUITY_RETURN_IF_ERROR(RefuseUnlessEmpty(model, "continuing_subword_prefix"));
  ACUITY_RETURN_IF_ERROR(RefuseUnlessEmpty(model, "end_of_word_suffix"));
  ACUITY_ASSIGN_OR_RETURN(spec->fuse_unknown, model.Bool("fuse_unk", false));
  ACUITY_ASSIGN_OR_RETURN(spec->byte_fallback, model.Bool("byte_fallback", false));
  ACUITY_ASSIGN_OR_RETURN(spec->whole_words, model.Bool("ignore_merges", false));
  ACUITY_RETURN_IF_ERROR(PlaceTokens(bulk, spec));
  ACUITY_RETURN_IF_ERROR(PlaceMerges(*bulk, spec));
  ACUITY_ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token", ""));
  if (unknown.empty()) return absl::OkStatus();
  const TokenId id = TokenIndex(*spec).Find(unknown);
  if (id == TokenIndex::kNone) {
    return model.Error("has unk_token ", QuoteForError(unknown),
                       ", which is no token of its vocab");
  }
  spec->unknown = id;
  return absl::OkStatus();
}

absl::Status ReadUnigram(const JsonNode& model, Bulk* bulk, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(model.AllowOnly({"type", "unk_id", "vocab", "byte_fallback"}));
  if (!bulk->merges.empty()) return model.Error("is Unigram, but has merges");
  spec->model = TokenModelKind::kUnigram;
  spec->fuse_unknown = true;  // SentencePiece always does
  ACUITY_ASSIGN_OR_RETURN(spec->byte_fallback, model.Bool("byte_fallback", false));
  for (const Bulk::Entry& entry : bulk->vocab) spec->scores.push_back(entry.score);
  ACUITY_RETURN_IF_ERROR(PlaceTokens(bulk, spec));
  if (!model.Has("unk_id")) return absl::OkStatus();
  ACUITY_ASSIGN_OR_RETURN(
      const int64_t id, model.Integer("unk_id", 0, static_cast<int64_t>(spec->tokens.size()) - 1));
  spec->unknown = static_cast<TokenId>(id);
  return absl::OkStatus();
}

absl::Status ReadModel(const JsonNode& root, Bulk* bulk, TokenizerSpec* spec) {
  ACUITY_ASSIGN_OR_RETURN(const JsonNode model, root.Member("model"));
  // Files of before 2021 name no type.
  ACUITY_ASSIGN_OR_RETURN(const std::string type,
                          model.String("type", model.Has("merges") ? "BPE" : ""));
  const char* const container = type == "BPE" ? "object" : "array";
  if (type != "BPE" && type != "Unigram") {
    return model.Error("is of type ", QuoteForError(type), "; supported: BPE, Unigram");
  }
  ACUITY_ASSIGN_OR_RETURN(const JsonNode vocab, model.Member("vocab"));
  if (container != std::string_view(vocab.value().type_name())) {
    return vocab.Error("is of type ", vocab.value().type_name(), "; it must be ", container);
  }
  if (type == "Unigram") return ReadUnigram(model, bulk, spec);
  ACUITY_ASSIGN_OR_RETURN(const JsonNode merges, model.Member("merges"));
  if (!merges.value().is_array()) {
    return merges.Error("is of type ", merges.value().type_name(), "; it must be array");
  }
  return ReadBpe(model, bulk, spec);
}

// "<0x00>" to "<0xFF>" are bytes where the model or the decoder has them as such.
void MarkByteTokens(TokenizerSpec* spec) {
  if (!spec->byte_fallback && !spec->decoder.byte_fallback) return;
  const TokenIndex index(*spec);
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string spelling{'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
    const TokenId id = index.Find(spelling);
    if (id != TokenIndex::kNone && spec->kinds[id] == TokenKind::kNormal) {
      spec->kinds[id] = TokenKind::kByte;
    }
  }
}

}  // namespace

absl::Status ReadHfAddedToken(const JsonNode& node, int64_t id, TokenizerSpec* spec) {
  ACUITY_RETURN_IF_ERROR(node.AllowOnly(
      {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  ACUITY_ASSIGN_OR_RETURN(std::string content, node.String("content"));
  ACUITY_ASSIGN_OR_RETURN(const bool special, node.Bool("special", false));
  AddedToken token{.id = static_cast<TokenId>(id)};
  ACUITY_ASSIGN_OR_RETURN(token.takes_space_before, node.Bool("lstrip", false));
  ACUITY_ASSIGN_OR_RETURN(token.takes_space_after, node.Bool("rstrip", false));
  ACUITY_ASSIGN_OR_RETURN(token.whole_word, node.Bool("single_word", false));
  ACUITY_ASSIGN_OR_RETURN(token.normalised, node.Bool("normalized", !special));
  if (content.empty() || content.size() > kMaxTokenBytes) {
    return node.Error("has a content of ", content.size(), " bytes; it must have 1 to ",
                      kMaxTokenBytes);
  }
  const size_t at = static_cast<size_t>(id);
  if (at >= spec->tokens.size()) {
    spec->tokens.resize(at + 1);
    spec->kinds.resize(at + 1, TokenKind::kUnused);
    // Never chosen for its score: it is found before the model sees the text.
    if (!spec->scores.empty()) spec->scores.resize(at + 1, 0);
  }
  if (spec->kinds[at] != TokenKind::kUnused && spec->tokens[at] != content) {
    return node.Error("is ", QuoteForError(content), ", but token ", id, " is ",
                      QuoteForError(spec->tokens[at]));
  }
  token.in_model = spec->kinds[at] != TokenKind::kUnused;
  for (const AddedToken& other : spec->added) {
    if (other.id == token.id) token.in_model = other.in_model;  // described before
  }
  if (spec->added.size() == kMaxAddedTokens) {
    return node.Error("is one more than the limit of ", kMaxAddedTokens, " added tokens");
  }
  spec->tokens[at] = std::move(content);
  spec->kinds[at] = special ? TokenKind::kControl : TokenKind::kUserDefined;
  std::erase_if(spec->added, [id](const AddedToken& other) { return other.id == id; });
  spec->added.push_back(token);
  return absl::OkStatus();
}

absl::StatusOr<TokenizerSpec> ReadHfTokenizerFile(std::string_view bytes) {
  Bulk bulk;
  ACUITY_ASSIGN_OR_RETURN(
      const Json document,
      ParseJson(bytes, [&bulk](int depth, Json::parse_event_t event, Json& value) {
        return bulk.Take(depth, event, value);
      }));
  if (!bulk.error().empty()) return absl::InvalidArgumentError(bulk.error());
  const JsonNode root(&document, "");
  ACUITY_RETURN_IF_ERROR(
      root.AllowOnly({"version", "truncation", "padding", "added_tokens", "normalizer",
                      "pre_tokenizer", "post_processor", "decoder", "model"}));
  TokenizerSpec spec;
  ACUITY_RETURN_IF_ERROR(ReadModel(root, &bulk, &spec));
  if (root.Has("added_tokens")) {
    ACUITY_RETURN_IF_ERROR(root.ForEach("added_tokens", [&](const JsonNode& node) -> absl::Status {
      constexpr int64_t kMaxId = static_cast<int64_t>(kMaxVocabulary) - 1;
      ACUITY_ASSIGN_OR_RETURN(const int64_t id, node.Integer("id", 0, kMaxId));
      return ReadHfAddedToken(node, id, &spec);
    }));
  }
  ACUITY_RETURN_IF_ERROR(ReadHfPipeline(root, &spec));
  MarkByteTokens(&spec);
  return spec;
}

}  // namespace acuity::engine
