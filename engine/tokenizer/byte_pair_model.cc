// Byte-pair encoding: GPT-2's, over bytes, and SentencePiece's, over characters.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/byte_pair_merger.h"
#include "engine/tokenizer/byte_tokens.h"
#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/word_model.h"

namespace acuity::engine {
namespace {

using Merge = BytePairMerger::Merge;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// A token of the model, or kNoToken.
TokenId FindText(const Vocabulary& vocabulary, const std::vector<bool>& in_model,
                 std::string_view text) {
  const auto it = vocabulary.find(text);
  return it != vocabulary.end() && in_model[it->second] ? it->second : kNoToken;
}

// The listed merges. One from or to a token that is not text could only yield what plain text must
// not become: it is left out.
absl::StatusOr<std::vector<Merge>> ListedMerges(const TokenizerSpec& spec,
                                                const Vocabulary& vocabulary,
                                                const std::vector<bool>& in_model) {
  std::vector<Merge> merges;
  merges.reserve(spec.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto [left, right] = spec.merges[rank];
    for (const TokenId id : {left, right}) {
      if (id < 0 || static_cast<size_t>(id) >= spec.tokens.size()) {
        return Invalid("merges: merge ", rank, " is of token ", id, "; there are ",
                       spec.tokens.size());
      }
    }
    joined.assign(spec.tokens[left]).append(spec.tokens[right]);
    const auto it = vocabulary.find(joined);
    if (it == vocabulary.end()) {
      return Invalid("merges: merge ", rank, " of tokens ", left, " and ", right,
                     " makes a text that is no token");
    }
    if (in_model[left] && in_model[right] && in_model[it->second]) {
      merges.push_back({left, right, it->second, static_cast<int32_t>(rank)});
    }
  }
  return merges;
}

// Every way to make a token of two; ranked by the score of what they make.
std::vector<Merge> ScoredMerges(const TokenizerSpec& spec, const Vocabulary& vocabulary,
                                const std::vector<bool>& in_model) {
  std::vector<double> order(spec.scores);
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  std::vector<Merge> merges;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!in_model[id]) continue;
    const std::string_view token = spec.tokens[id];
    const auto rank =
        std::lower_bound(order.begin(), order.end(), spec.scores[id], std::greater<>()) -
        order.begin();
    for (size_t at = 1; at < token.size(); ++at) {
      if ((static_cast<uint8_t>(token[at]) & 0xC0) == 0x80) continue;
      const TokenId left = FindText(vocabulary, in_model, token.substr(0, at));
      if (left == kNoToken) continue;
      const TokenId right = FindText(vocabulary, in_model, token.substr(at));
      if (right == kNoToken) continue;
      merges.push_back({left, right, static_cast<TokenId>(id), static_cast<int32_t>(rank)});
    }
  }
  return merges;
}

class BytePairModel : public WordModel {
 public:
  static absl::StatusOr<std::unique_ptr<const WordModel>> Create(const TokenizerSpec& spec,
                                                                 const Vocabulary& vocabulary) {
    auto model = std::make_unique<BytePairModel>();
    const std::vector<bool> in_model = ModelTokens(spec);
    std::vector<Merge> merges;
    if (spec.merges.empty() && !spec.scores.empty()) {
      merges = ScoredMerges(spec, vocabulary, in_model);
    } else {
      auto listed = ListedMerges(spec, vocabulary, in_model);
      if (!listed.ok()) return listed.status();
      merges = *std::move(listed);
    }
    auto merger = BytePairMerger::Create(merges);
    if (!merger.ok()) return Invalid("merges: ", merger.status().message());
    model->merger_ = *std::move(merger);
    model->unknown_ = spec.unknown.value_or(kNoToken);
    model->fuse_unknown_ = spec.fuse_unknown;
    model->byte_level_ = spec.byte_level;
    absl::Status status = spec.byte_level ? model->IndexBytes(vocabulary, in_model)
                                          : model->IndexCharacters(spec, vocabulary, in_model);
    if (!status.ok()) return status;
    if (spec.whole_words) model->IndexWords(spec);
    return std::unique_ptr<const WordModel>(std::move(model));
  }

  void Encode(std::span<const std::string_view> words, std::vector<TokenId>* ids) const override {
    BytePairMerger::Scratch scratch;
    std::vector<TokenId> symbols;
    for (const std::string_view word : words) {
      if (const auto it = whole_words_.find(word); it != whole_words_.end()) {
        ids->push_back(it->second);
        continue;
      }
      symbols.clear();
      if (byte_level_) {
        AddBytes(word, &symbols);
      } else {
        AddCharacters(word, &symbols);
      }
      merger_.Apply(symbols, &scratch, ids);
    }
  }

 private:
  // Real vocabularies lack bytes that valid UTF-8 never or hardly ever has; none lacks printable
  // ASCII.
  absl::Status IndexBytes(const Vocabulary& vocabulary, const std::vector<bool>& in_model) {
    for (int b = 0; b < 256; ++b) {
      bytes_[b] = FindText(vocabulary, in_model, SpellByte(static_cast<uint8_t>(b)));
      const bool needed = (b >= 0x20 && b <= 0x7E) || b == '\n';
      if (needed && bytes_[b] == kNoToken && unknown_ == kNoToken) {
        return Invalid("tokens: no normal token for byte ", b, ", and none for what is unknown");
      }
    }
    return absl::OkStatus();
  }

  absl::Status IndexCharacters(const TokenizerSpec& spec, const Vocabulary& vocabulary,
                               const std::vector<bool>& in_model) {
    for (const auto& [text, id] : vocabulary) {
      if (!in_model[id]) continue;
      const Utf8Char c = DecodeUtf8(text);
      if (c.length == text.size()) characters_.emplace(c.code, id);
    }
    if (spec.byte_fallback) fallback_ = FindByteTokens(spec, vocabulary);
    return absl::OkStatus();
  }

  void IndexWords(const TokenizerSpec& spec) {
    size_t total = 0;
    for (const std::string& token : spec.tokens) total += token.size();
    word_bytes_.reserve(total);  // never moves: the keys are views into it
    for (size_t i = 0; i < spec.tokens.size(); ++i) {
      if (spec.kinds[i] != TokenKind::kNormal) continue;
      const size_t begin = word_bytes_.size();
      if (byte_level_) {
        AppendSpelledBytes(spec.tokens[i], &word_bytes_);
      } else {
        word_bytes_ += spec.tokens[i];
      }
      whole_words_.emplace(std::string_view(word_bytes_).substr(begin), static_cast<TokenId>(i));
    }
  }

  void AddUnknown(bool follows, std::vector<TokenId>* symbols) const {
    if (unknown_ != kNoToken && !(follows && fuse_unknown_)) symbols->push_back(unknown_);
  }

  void AddBytes(std::string_view word, std::vector<TokenId>* symbols) const {
    bool unknown = false;
    for (const char c : word) {
      const TokenId id = bytes_[static_cast<uint8_t>(c)];
      if (id == kNoToken) {
        AddUnknown(unknown, symbols);
      } else {
        symbols->push_back(id);
      }
      unknown = id == kNoToken;
    }
  }

  void AddCharacters(std::string_view word, std::vector<TokenId>* symbols) const {
    bool unknown = false;
    for (size_t pos = 0; pos < word.size();) {
      const Utf8Char c = DecodeUtf8(word.substr(pos));
      const auto it = characters_.find(c.code);
      const bool known = it != characters_.end();
      if (known) {
        symbols->push_back(it->second);
      } else if (!fallback_.Append(word.substr(pos, c.length), symbols)) {
        AddUnknown(unknown, symbols);
        unknown = true;
        pos += c.length;
        continue;
      }
      unknown = false;
      pos += c.length;
    }
  }

  BytePairMerger merger_;
  bool byte_level_ = false;
  std::array<TokenId, 256> bytes_{};                   // byte_level_
  absl::flat_hash_map<uint32_t, TokenId> characters_;  // else
  ByteTokens fallback_;                                // else
  TokenId unknown_ = kNoToken;
  bool fuse_unknown_ = false;
  std::string word_bytes_;
  Vocabulary whole_words_;  // by bytes
};

}  // namespace

absl::StatusOr<std::unique_ptr<const WordModel>> CreateBytePairModel(const TokenizerSpec& spec,
                                                                     const Vocabulary& vocabulary) {
  return BytePairModel::Create(spec, vocabulary);
}

}  // namespace acuity::engine
