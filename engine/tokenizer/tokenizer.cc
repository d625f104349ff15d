#include "engine/tokenizer/tokenizer.h"

#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/normaliser.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/token_texts.h"
#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/word_model.h"

namespace acuity::engine {
namespace {

// 2^24 is 64 times the largest vocabulary in use, and keeps every id and rank far from overflow.
constexpr size_t kMaxTokens = size_t{1} << 24;

template <typename... Parts>
absl::Status Invalid(const char* field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.", field, ": ", parts...));
}

// For error messages: file content that may be anything, shortened.
std::string Quote(std::string_view text) {
  std::string safe;
  AppendRepaired(text.substr(0, 40), /*final=*/true, &safe);
  return absl::StrCat("'", safe, text.size() > 40 ? "...'" : "'");
}

// Whether a token has text of its own, for decoding.
bool HasText(TokenKind kind) { return IsTextKind(kind) || kind == TokenKind::kByte; }

absl::Status CheckId(const TokenizerSpec& spec, const char* field, TokenId id) {
  if (id >= 0 && static_cast<size_t>(id) < spec.tokens.size()) return absl::OkStatus();
  return Invalid(field, id, " is not below the number of tokens, ", spec.tokens.size());
}

absl::Status CheckIds(const TokenizerSpec& spec) {
  const std::pair<const char*, std::optional<TokenId>> ids[] = {{"bos", spec.bos},
                                                                {"eos", spec.eos},
                                                                {"unk", spec.unk},
                                                                {"pad", spec.pad},
                                                                {"unknown", spec.unknown}};
  for (const auto& [field, id] : ids) {
    if (!id.has_value()) continue;
    if (absl::Status status = CheckId(spec, field, *id); !status.ok()) return status;
  }
  const std::pair<const char*, const std::vector<TokenId>*> lists[] = {
      {"end_of_generation", &spec.end_of_generation},
      {"prefix", &spec.prefix},
      {"suffix", &spec.suffix}};
  for (const auto& [field, list] : lists) {
    for (const TokenId id : *list) {
      if (absl::Status status = CheckId(spec, field, id); !status.ok()) return status;
    }
  }
  for (const AddedToken& token : spec.added) {
    if (absl::Status status = CheckId(spec, "added", token.id); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const TokenizerSpec& spec) {
  if (spec.tokens.empty() || spec.tokens.size() > kMaxTokens) {
    return Invalid("tokens", "has ", spec.tokens.size(), " entries (1 to ", kMaxTokens, ")");
  }
  if (spec.merges.size() > kMaxTokens) {
    return Invalid("merges", "has more than ", kMaxTokens, " entries");
  }
  if (spec.kinds.size() != spec.tokens.size()) {
    return Invalid("kinds", "has ", spec.kinds.size(), " entries, tokens has ", spec.tokens.size());
  }
  if (!spec.scores.empty() && spec.scores.size() != spec.tokens.size()) {
    return Invalid("scores", "has ", spec.scores.size(), " entries, tokens has ",
                   spec.tokens.size());
  }
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (ValidUtf8Prefix(spec.tokens[i]) != spec.tokens[i].size()) {
      return Invalid("tokens", "token ", i, " is not valid UTF-8");
    }
  }
  return CheckIds(spec);
}

absl::StatusOr<Vocabulary> IndexTokens(const TokenizerSpec& spec) {
  Vocabulary vocabulary;
  vocabulary.reserve(spec.tokens.size());
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.kinds[i] == TokenKind::kUnused) continue;
    if (spec.tokens[i].empty()) return Invalid("tokens", "token ", i, " is empty");
    const auto [it, fresh] = vocabulary.emplace(spec.tokens[i], static_cast<TokenId>(i));
    if (!fresh) {
      return Invalid("tokens", Quote(spec.tokens[i]), " is token ", it->second, " and token ", i);
    }
  }
  return vocabulary;
}

}  // namespace

struct Tokenizer::Impl {
  TokenizerSpec spec;
  TokenTexts texts;
  AddedTokens added;             // looked for in the text as it comes
  AddedTokens added_normalised;  // and in what the normaliser made of the rest
  Normaliser normaliser;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<const WordModel> model;
  std::vector<bool> ends;  // by id: end of generation

  absl::Status Init();
  absl::Status InitAdded();  // and the texts
  absl::Status InitPipeline();
  absl::Status EncodeWords(std::string_view text, bool at_start, std::vector<TokenId>* ids) const;
  absl::Status EncodePlain(std::string_view text, bool at_start, std::vector<TextRun> trusted,
                           std::vector<TokenId>* ids) const;
  absl::Status EncodeText(std::string_view text, const std::vector<TextRun>& trusted,
                          std::vector<TokenId>* ids) const;
};

absl::Status Tokenizer::Impl::Init() {
  if (absl::Status status = CheckShape(spec); !status.ok()) return status;
  if (absl::Status status = InitPipeline(); !status.ok()) return status;
  if (absl::Status status = InitAdded(); !status.ok()) return status;
  ends.assign(spec.tokens.size(), false);
  for (const TokenId id : spec.end_of_generation) ends[id] = true;
  if (spec.eos) ends[*spec.eos] = true;
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::InitPipeline() {
  const auto vocabulary = IndexTokens(spec);
  if (!vocabulary.ok()) return vocabulary.status();
  auto steps = Normaliser::Create(spec.normaliser);
  if (!steps.ok()) return Invalid("normaliser", steps.status().message());
  normaliser = *std::move(steps);
  auto splits = PreTokenizer::Create(spec.pre_tokenizer);
  if (!splits.ok()) return Invalid("pre_tokenizer", splits.status().message());
  pre_tokenizer = *std::move(splits);
  auto words = spec.model == TokenModelKind::kUnigram ? CreateUnigramModel(spec, *vocabulary)
                                                      : CreateBytePairModel(spec, *vocabulary);
  if (!words.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.", words.status().message()));
  }
  model = *std::move(words);
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::InitAdded() {
  TokenTexts::Spellings spellings;
  absl::flat_hash_map<TokenId, AddedToken> details;
  for (const AddedToken& token : spec.added) details.emplace(token.id, token);
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenKind kind = spec.kinds[i];
    if (kind != TokenKind::kControl && kind != TokenKind::kUnknown &&
        kind != TokenKind::kUserDefined) {
      continue;
    }
    const TokenId id = static_cast<TokenId>(i);
    const auto it = details.find(id);
    const AddedToken token = it == details.end() ? AddedToken{.id = id} : it->second;
    std::string spelling = spec.tokens[i];
    if (token.normalised) {
      std::vector<TextRun> no_runs;
      if (auto status = normaliser.Apply(&spelling, &no_runs); !status.ok()) return status;
      spellings.emplace(id, spelling);
    }
    AddedTokens& set = token.normalised ? added_normalised : added;
    const absl::Status status =
        set.Add(spelling, token, /*control=*/kind != TokenKind::kUserDefined);
    if (!status.ok()) return Invalid("tokens", status.message());
  }
  auto all = TokenTexts::Create(&spec, std::move(spellings));
  if (!all.ok()) return all.status();
  texts = *std::move(all);
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::EncodeWords(std::string_view text, bool at_start,
                                          std::vector<TokenId>* ids) const {
  PreTokenizer::Words words;
  if (absl::Status s = pre_tokenizer.Split(text, at_start, &words); !s.ok()) return s;
  model->Encode(words.words, ids);
  return absl::OkStatus();
}

// A stretch of text without tokens that are looked for before it is normalised.
absl::Status Tokenizer::Impl::EncodePlain(std::string_view text, bool at_start,
                                          std::vector<TextRun> trusted,
                                          std::vector<TokenId>* ids) const {
  if (text.empty()) return absl::OkStatus();
  std::string normalised;
  if (!normaliser.empty()) {
    normalised = text;
    if (absl::Status s = normaliser.Apply(&normalised, &trusted); !s.ok()) return s;
    text = normalised;
  }
  if (added_normalised.empty()) return EncodeWords(text, at_start, ids);
  size_t pos = 0;
  for (const AddedTokens::Found& found : added_normalised.Find(text, trusted)) {
    const absl::Status s =
        EncodeWords(text.substr(pos, found.begin - pos), at_start && pos == 0, ids);
    if (!s.ok()) return s;
    ids->push_back(found.id);
    pos = found.end;
  }
  return EncodeWords(text.substr(pos), at_start && pos == 0, ids);
}

// What of `runs` lies within [begin, end), counted from `begin`. `*first` is the first run that may
// do so, and moves on.
std::vector<TextRun> Within(const std::vector<TextRun>& runs, size_t begin, size_t end,
                            size_t* first) {
  std::vector<TextRun> within;
  while (*first < runs.size() && runs[*first].end <= begin) ++*first;
  for (size_t i = *first; i < runs.size() && runs[i].begin < end; ++i) {
    within.push_back({std::max(runs[i].begin, begin) - begin, std::min(runs[i].end, end) - begin});
  }
  return within;
}

absl::Status Tokenizer::Impl::EncodeText(std::string_view text, const std::vector<TextRun>& trusted,
                                         std::vector<TokenId>* ids) const {
  // Far above what callers let through (kMaxPromptBytes), and far below where offsets overflow.
  if (text.size() > Normaliser::kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: has ", text.size(), " bytes, more than ", Normaliser::kMaxBytes));
  }
  if (const size_t valid = ValidUtf8Prefix(text); valid < text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 at byte ", valid));
  }
  size_t pos = 0, run = 0;
  for (const AddedTokens::Found& found : added.Find(text, trusted)) {
    const absl::Status s = EncodePlain(text.substr(pos, found.begin - pos), pos == 0,
                                       Within(trusted, pos, found.begin, &run), ids);
    if (!s.ok()) return s;
    ids->push_back(found.id);
    pos = found.end;
  }
  return EncodePlain(text.substr(pos), pos == 0, Within(trusted, pos, text.size(), &run), ids);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  auto impl = std::make_unique<Impl>();
  impl->spec = std::move(spec);
  if (absl::Status status = impl->Init(); !status.ok()) return status;
  return std::unique_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(std::string_view text,
                                                       EncodeOptions options) const {
  std::vector<TokenId> ids;
  if (options.add_special) ids = impl_->spec.prefix;
  std::vector<TextRun> trusted;
  if (options.parse_special) trusted.push_back({0, text.size()});
  if (absl::Status status = impl_->EncodeText(text, trusted, &ids); !status.ok()) return status;
  if (options.add_special) {
    ids.insert(ids.end(), impl_->spec.suffix.begin(), impl_->spec.suffix.end());
  }
  return ids;
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::EncodeSegments(
    std::span<const Segment> segments) const {
  // Words may span segments, as they did when the model was trained on the rendered text; control
  // tokens may not.
  std::string text;
  std::vector<TextRun> trusted;
  for (const Segment& segment : segments) {
    const size_t begin = text.size();
    text += segment.text;
    if (!segment.trusted || segment.text.empty()) continue;
    if (!trusted.empty() && trusted.back().end == begin) {
      trusted.back().end = text.size();
    } else {
      trusted.push_back({begin, text.size()});
    }
  }
  std::vector<TokenId> ids;
  if (absl::Status status = impl_->EncodeText(text, trusted, &ids); !status.ok()) return status;
  return ids;
}

std::string_view Tokenizer::TokenBytes(TokenId id, bool with_special) const {
  if (!Shows(id, with_special)) return {};
  return impl_->texts.Get(id);
}

bool Tokenizer::Shows(TokenId id, bool with_special) const {
  if (id < 0 || static_cast<size_t>(id) >= impl_->spec.tokens.size()) return false;
  return with_special || HasText(impl_->spec.kinds[id]);
}

std::string Tokenizer::Decode(std::span<const TokenId> ids, bool with_special) const {
  StreamDecoder decoder(this, StreamDecoder::From::kStart);
  std::string text;
  for (const TokenId id : ids) {
    if (Shows(id, with_special)) text += decoder.Take(id);
  }
  return text + decoder.Finish();
}

int Tokenizer::vocab_size() const { return static_cast<int>(impl_->spec.tokens.size()); }

bool Tokenizer::IsEndOfGeneration(TokenId id) const {
  return id >= 0 && static_cast<size_t>(id) < impl_->ends.size() && impl_->ends[id];
}

const TokenizerSpec& Tokenizer::spec() const { return impl_->spec; }

StreamDecoder::StreamDecoder(const Tokenizer* tokenizer, From from) : tokenizer_(tokenizer) {
  if (from == From::kPrompt) return;
  const DecoderSpec& decoder = tokenizer->spec().decoder;
  first_ = !decoder.first_token_drops.empty();
  strips_left_ = decoder.max_strips;
}

std::string StreamDecoder::Push(TokenId id) {
  return tokenizer_->Shows(id, /*with_special=*/false) ? Take(id) : std::string();
}

std::string StreamDecoder::Take(TokenId id) {
  if (first_) {
    pending_ += tokenizer_->impl_->texts.GetFirst(id);
  } else {
    pending_ += tokenizer_->TokenBytes(id, /*with_special=*/true);
  }
  first_ = false;
  std::string text;
  pending_.erase(0, AppendRepaired(pending_, /*final=*/false, &text));
  return Strip(std::move(text));
}

std::string StreamDecoder::Strip(std::string text) {
  const std::string& strip = tokenizer_->spec().decoder.strip;
  while (strips_left_ > 0 && !strip.empty() && text.starts_with(strip)) {
    text.erase(0, strip.size());
    --strips_left_;
  }
  if (!text.empty()) strips_left_ = 0;
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text;
  AppendRepaired(pending_, /*final=*/true, &text);
  pending_.clear();
  return text;
}

}  // namespace acuity::engine
