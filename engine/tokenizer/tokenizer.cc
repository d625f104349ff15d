#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/byte_pair_merger.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/special_tokens.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine {
namespace {

using Vocabulary = absl::flat_hash_map<std::string_view, TokenId>;

// GPT-2's alphabet: every byte has a printable character. Bytes that are printable in Latin-1 stand
// for themselves, the other 68 are U+0100.. in order.
struct ByteAlphabet {
  std::array<uint16_t, 256> code{};   // byte -> character
  std::array<int16_t, 0x144> byte{};  // character -> byte, or -1

  ByteAlphabet() {
    byte.fill(-1);
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      code[b] = printable ? static_cast<uint16_t>(b) : next++;
      byte[code[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

absl::Status Invalid(const std::string& field, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.", field, ": ", problem));
}

// For error messages: file content that may be anything, shortened.
std::string Quote(std::string_view text) {
  std::string safe;
  AppendRepaired(text.substr(0, 40), /*final=*/true, &safe);
  return absl::StrCat("'", safe, text.size() > 40 ? "...'" : "'");
}

bool IsText(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined;
}

absl::Status CheckId(const TokenizerSpec& spec, const char* field, std::optional<TokenId> id) {
  if (!id || (*id >= 0 && static_cast<size_t>(*id) < spec.tokens.size())) return absl::OkStatus();
  return Invalid(field,
                 absl::StrCat(*id, " is not below the number of tokens, ", spec.tokens.size()));
}

absl::Status CheckShape(const TokenizerSpec& spec) {
  if (spec.model != "gpt2") {
    return Invalid("ggml.model",
                   absl::StrCat(Quote(spec.model), " is not supported (supported: gpt2)"));
  }
  // 2^24 is 64 times the largest vocabulary in use, and keeps every id and rank far from overflow.
  constexpr size_t kMaxTokens = size_t{1} << 24;
  if (spec.tokens.empty() || spec.tokens.size() > kMaxTokens) {
    return Invalid("ggml.tokens",
                   absl::StrCat("has ", spec.tokens.size(), " entries (1 to ", kMaxTokens, ")"));
  }
  if (spec.merges.size() > kMaxTokens) {
    return Invalid("ggml.merges", absl::StrCat("has more than ", kMaxTokens, " entries"));
  }
  if (spec.kinds.size() != spec.tokens.size()) {
    return Invalid(
        "ggml.token_type",
        absl::StrCat("has ", spec.kinds.size(), " entries, ggml.tokens has ", spec.tokens.size()));
  }
  for (size_t i = 0; i < spec.kinds.size(); ++i) {
    if (spec.kinds[i] > TokenKind::kUnused) {
      return Invalid("ggml.token_type",
                     absl::StrCat("type of token ", i, " is not supported with model gpt2"));
    }
  }
  const std::pair<const char*, std::optional<TokenId>> ids[] = {
      {"ggml.bos_token_id", spec.bos},
      {"ggml.eos_token_id", spec.eos},
      {"ggml.unknown_token_id", spec.unk},
      {"ggml.padding_token_id", spec.pad}};
  for (const auto& [field, id] : ids) {
    if (absl::Status status = CheckId(spec, field, id); !status.ok()) return status;
  }
  for (const TokenId id : spec.end_of_generation) {
    if (absl::Status status = CheckId(spec, "ggml.eot_token_id", id); !status.ok()) return status;
  }
  if (spec.add_bos && !spec.bos)
    return Invalid("ggml.add_bos_token", "true, but there is no bos_token_id");
  if (spec.add_eos && !spec.eos)
    return Invalid("ggml.add_eos_token", "true, but there is no eos_token_id");
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> IndexTokens(const TokenizerSpec& spec) {
  Vocabulary vocabulary;
  vocabulary.reserve(spec.tokens.size());
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.tokens[i].empty())
      return Invalid("ggml.tokens", absl::StrCat("token ", i, " is empty"));
    const auto [it, fresh] = vocabulary.emplace(spec.tokens[i], static_cast<TokenId>(i));
    if (!fresh) {
      return Invalid("ggml.tokens", absl::StrCat(Quote(spec.tokens[i]), " is token ", it->second,
                                                 " and token ", i));
    }
  }
  return vocabulary;
}

// Real vocabularies lack bytes that valid UTF-8 never or hardly ever has; none lacks printable
// ASCII.
absl::StatusOr<std::array<TokenId, 256>> FindByteTokens(const TokenizerSpec& spec,
                                                        const Vocabulary& vocabulary) {
  std::array<TokenId, 256> ids;
  for (int b = 0; b < 256; ++b) {
    std::string spelling;
    AppendUtf8(Alphabet().code[b], &spelling);
    const auto it = vocabulary.find(spelling);
    const bool found = it != vocabulary.end() && IsText(spec.kinds[it->second]);
    ids[b] = found ? it->second : kNoToken;
    if (!found && ((b >= 0x20 && b <= 0x7E) || b == '\n')) {
      return Invalid("ggml.tokens",
                     absl::StrCat("no normal token for byte ", b, ", ", Quote(spelling)));
    }
  }
  return ids;
}

// Merges by id. A merge must not yield a control token: plain text could then become one.
absl::StatusOr<std::vector<BytePairMerger::Merge>> ResolveMerges(const TokenizerSpec& spec,
                                                                 const Vocabulary& vocabulary) {
  std::vector<BytePairMerger::Merge> merges;
  merges.reserve(spec.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string_view merge = spec.merges[rank];
    // The alphabet has no space, so the separator is the only one; a side of "" is never a token.
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos) {
      return Invalid("ggml.merges",
                     absl::StrCat("merge ", rank, ", ", Quote(merge), ", has no space"));
    }
    const std::string_view sides[2] = {merge.substr(0, space), merge.substr(space + 1)};
    joined.assign(sides[0]).append(sides[1]);
    TokenId ids[3];
    for (int i = 0; i < 3; ++i) {
      const auto it = vocabulary.find(i < 2 ? sides[i] : std::string_view(joined));
      if (it == vocabulary.end() || !IsText(spec.kinds[it->second])) {
        return Invalid(
            "ggml.merges",
            absl::StrCat("merge ", rank, ", ", Quote(merge), ": ",
                         Quote(i < 2 ? sides[i] : std::string_view(joined)),
                         it == vocabulary.end() ? " is not a token" : " is not a normal token"));
      }
      ids[i] = it->second;
    }
    merges.push_back({ids[0], ids[1], ids[2]});
  }
  return merges;
}

// Appends the bytes that a token stands for. Text outside the alphabet stands for itself.
void AppendTokenBytes(std::string_view token, TokenKind kind, std::string* out) {
  const size_t start = out->size();
  if (kind == TokenKind::kNormal) {
    for (size_t pos = 0; pos < token.size();) {
      const Utf8Char c = DecodeUtf8(token.substr(pos));
      if (c.state != Utf8Char::State::kValid || c.code >= Alphabet().byte.size() ||
          Alphabet().byte[c.code] < 0) {
        out->resize(start);
        out->append(token);
        return;
      }
      out->push_back(static_cast<char>(Alphabet().byte[c.code]));
      pos += c.length;
    }
    return;
  }
  out->append(token);
}

}  // namespace

struct Tokenizer::Impl {
  TokenizerSpec spec;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  BytePairMerger merger;
  SpecialTokens special;
  std::string bytes;              // of all tokens
  std::vector<uint32_t> offsets;  // [vocab + 1] into `bytes`
  Vocabulary whole_words;         // bytes -> normal token; only if the pre-tokenizer wants it
  std::vector<bool> ends;         // by id: end of generation

  absl::Status Init();
  absl::Status InitBytes();
  absl::Status EncodePlain(std::string_view text, BytePairMerger::Scratch* scratch,
                           std::vector<TokenId>* ids) const;
  absl::Status EncodeText(std::string_view text, const std::vector<SpecialTokens::Run>& trusted,
                          std::vector<TokenId>* ids) const;
  std::string_view Bytes(TokenId id) const {
    return std::string_view(bytes).substr(offsets[id], offsets[id + 1] - offsets[id]);
  }
};

absl::Status Tokenizer::Impl::Init() {
  if (absl::Status status = CheckShape(spec); !status.ok()) return status;
  auto pre = PreTokenizer::Create(spec.pre_tokenizer);
  if (!pre.ok()) return pre.status();
  pre_tokenizer = *std::move(pre);
  const auto vocabulary = IndexTokens(spec);
  if (!vocabulary.ok()) return vocabulary.status();
  const auto byte_ids = FindByteTokens(spec, *vocabulary);
  if (!byte_ids.ok()) return byte_ids.status();
  const auto merges = ResolveMerges(spec, *vocabulary);
  if (!merges.ok()) return merges.status();
  auto created = BytePairMerger::Create(*byte_ids, *merges);
  if (!created.ok()) return Invalid("ggml.merges", std::string(created.status().message()));
  merger = *std::move(created);
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenKind kind = spec.kinds[i];
    if (kind == TokenKind::kNormal || kind == TokenKind::kUnused) continue;
    const absl::Status status = special.Add(spec.tokens[i], static_cast<TokenId>(i),
                                            /*control=*/kind != TokenKind::kUserDefined);
    if (!status.ok()) return Invalid("ggml.tokens", std::string(status.message()));
  }
  ends.assign(spec.tokens.size(), false);
  for (const TokenId id : spec.end_of_generation) ends[id] = true;
  if (spec.eos) ends[*spec.eos] = true;
  return InitBytes();
}

absl::Status Tokenizer::Impl::InitBytes() {
  size_t total = 0;
  for (const std::string& token : spec.tokens) total += token.size();
  if (total > std::numeric_limits<uint32_t>::max())
    return Invalid("ggml.tokens", "more than 4 GiB");
  bytes.reserve(total);
  offsets.reserve(spec.tokens.size() + 1);
  offsets.push_back(0);
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    AppendTokenBytes(spec.tokens[i], spec.kinds[i], &bytes);
    offsets.push_back(static_cast<uint32_t>(bytes.size()));
  }
  if (!pre_tokenizer->whole_word_first()) return absl::OkStatus();
  whole_words.reserve(spec.tokens.size());
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    if (spec.kinds[i] == TokenKind::kNormal) whole_words.emplace(Bytes(id), id);
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::EncodePlain(std::string_view text, BytePairMerger::Scratch* scratch,
                                          std::vector<TokenId>* ids) const {
  if (text.empty()) return absl::OkStatus();
  std::vector<std::string_view> words;
  if (absl::Status status = pre_tokenizer->Split(text, &words); !status.ok()) return status;
  for (const std::string_view word : words) {
    if (!whole_words.empty()) {
      if (const auto it = whole_words.find(word); it != whole_words.end()) {
        ids->push_back(it->second);
        continue;
      }
    }
    merger.Apply(word, scratch, ids);
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::EncodeText(std::string_view text,
                                         const std::vector<SpecialTokens::Run>& trusted,
                                         std::vector<TokenId>* ids) const {
  // Offsets in the merger are 31 bits wide; callers bound prompts far below (kMaxPromptBytes).
  if (text.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("text is longer than 2 GiB");
  }
  if (const size_t valid = ValidUtf8Prefix(text); valid < text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 at byte ", valid));
  }
  BytePairMerger::Scratch scratch;
  size_t pos = 0;
  for (const SpecialTokens::Found& found : special.Find(text, trusted)) {
    const absl::Status status = EncodePlain(text.substr(pos, found.begin - pos), &scratch, ids);
    if (!status.ok()) return status;
    ids->push_back(found.id);
    pos = found.end;
  }
  return EncodePlain(text.substr(pos), &scratch, ids);
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
  if (options.add_special && impl_->spec.add_bos) ids.push_back(*impl_->spec.bos);
  std::vector<SpecialTokens::Run> trusted;
  if (options.parse_special) trusted.push_back({0, text.size()});
  if (absl::Status status = impl_->EncodeText(text, trusted, &ids); !status.ok()) return status;
  if (options.add_special && impl_->spec.add_eos) ids.push_back(*impl_->spec.eos);
  return ids;
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::EncodeSegments(
    std::span<const Segment> segments) const {
  // Words may span segments, as they did when the model was trained on the rendered text; control
  // tokens may not.
  std::string text;
  std::vector<SpecialTokens::Run> trusted;
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
  if (id < 0 || static_cast<size_t>(id) >= impl_->spec.tokens.size()) return {};
  if (!with_special && !IsText(impl_->spec.kinds[id])) return {};
  return impl_->Bytes(id);
}

std::string Tokenizer::Decode(std::span<const TokenId> ids, bool with_special) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += TokenBytes(id, with_special);
  std::string text;
  AppendRepaired(bytes, /*final=*/true, &text);
  return text;
}

int Tokenizer::vocab_size() const { return static_cast<int>(impl_->spec.tokens.size()); }

bool Tokenizer::IsEndOfGeneration(TokenId id) const {
  return id >= 0 && static_cast<size_t>(id) < impl_->ends.size() && impl_->ends[id];
}

const TokenizerSpec& Tokenizer::spec() const { return impl_->spec; }

std::string StreamDecoder::Push(TokenId id) {
  pending_ += tokenizer_->TokenBytes(id);
  std::string text;
  pending_.erase(0, AppendRepaired(pending_, /*final=*/false, &text));
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text;
  AppendRepaired(pending_, /*final=*/true, &text);
  pending_.clear();
  return text;
}

}  // namespace acuity::engine
