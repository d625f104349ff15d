// SentencePiece's unigram model: the likeliest way to cut a word into tokens.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/byte_tokens.h"
#include "engine/tokenizer/byte_trie.h"
#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/word_model.h"

namespace acuity::engine {
namespace {

// How much less likely than the least likely token an unknown character is, as in SentencePiece.
constexpr double kUnknownPenalty = 10;

class UnigramModel : public WordModel {
 public:
  static absl::StatusOr<std::unique_ptr<const WordModel>> Create(const TokenizerSpec& spec,
                                                                 const Vocabulary& vocabulary) {
    if (spec.scores.size() != spec.tokens.size()) {
      return absl::InvalidArgumentError(absl::StrCat("scores: there are ", spec.scores.size(),
                                                     ", but ", spec.tokens.size(), " tokens"));
    }
    auto model = std::make_unique<UnigramModel>();
    model->scores_ = spec.scores;
    model->unknown_ = spec.unknown.value_or(kNoToken);
    model->unknown_score_ =
        *std::min_element(spec.scores.begin(), spec.scores.end()) - kUnknownPenalty;
    model->fuse_unknown_ = spec.fuse_unknown;
    const std::vector<bool> in_model = ModelTokens(spec);
    for (size_t i = 0; i < spec.tokens.size(); ++i) {
      if (!in_model[i]) continue;
      const ByteTrie::Node node = model->trie_.Insert(spec.tokens[i]);
      model->tokens_.resize(model->trie_.size(), kNoToken);
      model->tokens_[node] = static_cast<TokenId>(i);
      model->max_bytes_ = std::max(model->max_bytes_, spec.tokens[i].size());
    }
    if (spec.byte_fallback) model->fallback_ = FindByteTokens(spec, vocabulary);
    return std::unique_ptr<const WordModel>(std::move(model));
  }

  void Encode(std::span<const std::string_view> words, std::vector<TokenId>* ids) const override {
    std::vector<Path> paths;
    std::vector<Piece> pieces;
    for (const std::string_view word : words) {
      FindBest(word, &paths);
      Trace(word, paths, &pieces);
      for (const Piece& piece : pieces) {
        if (piece.id != kNoToken) {
          ids->push_back(piece.id);
          continue;
        }
        const std::string_view text = word.substr(piece.begin, piece.end - piece.begin);
        if (!fallback_.Append(text, ids) && unknown_ != kNoToken) ids->push_back(unknown_);
      }
    }
  }

 private:
  // The best way to the end of a prefix.
  struct Path {
    double score = 0;
    int32_t begin = -1;  // of its last piece; -1: no way yet
    TokenId id = kNoToken;
  };
  struct Piece {
    size_t begin = 0, end = 0;
    TokenId id = kNoToken;
  };

  void FindBest(std::string_view word, std::vector<Path>* paths) const {
    paths->assign(word.size() + 1, Path());
    for (size_t begin = 0; begin < word.size();) {
      const size_t length = DecodeUtf8(word.substr(begin)).length;
      const double score = (*paths)[begin].score;
      const auto offer = [&](size_t end, double candidate, TokenId id) {
        Path& path = (*paths)[end];
        if (path.begin < 0 || candidate > path.score) {
          path = {candidate, static_cast<int32_t>(begin), id};
        }
      };
      bool has_character = false;
      ByteTrie::Node node = ByteTrie::kRoot;
      for (size_t end = begin; end < word.size();) {
        node = trie_.Child(node, static_cast<uint8_t>(word[end]));
        if (node == ByteTrie::kNone) break;
        ++end;
        if (tokens_[node] == kNoToken) continue;
        offer(end, scores_[tokens_[node]] + score, tokens_[node]);
        has_character |= end - begin == length;
      }
      if (!has_character) offer(begin + length, unknown_score_ + score, kNoToken);
      begin += length;
    }
  }

  // The pieces of the best path; neighbouring unknown characters are one piece if they fuse, and
  // then a token if the vocabulary has it.
  void Trace(std::string_view word, const std::vector<Path>& paths,
             std::vector<Piece>* pieces) const {
    pieces->clear();
    for (size_t end = word.size(); end > 0;) {
      const Path& path = paths[end];
      const size_t begin = static_cast<size_t>(path.begin);
      const bool fuses =
          fuse_unknown_ && path.id == kNoToken && !pieces->empty() && pieces->back().id == kNoToken;
      if (fuses) {
        pieces->back().begin = begin;
      } else {
        pieces->push_back({begin, end, path.id});
      }
      end = begin;
    }
    std::reverse(pieces->begin(), pieces->end());
    for (Piece& piece : *pieces) {
      if (piece.id == kNoToken) piece.id = Whole(word.substr(piece.begin, piece.end - piece.begin));
    }
  }

  TokenId Whole(std::string_view text) const {
    if (text.size() > max_bytes_) return kNoToken;
    ByteTrie::Node node = ByteTrie::kRoot;
    for (const char c : text) {
      node = trie_.Child(node, static_cast<uint8_t>(c));
      if (node == ByteTrie::kNone) return kNoToken;
    }
    return tokens_[node];
  }

  ByteTrie trie_;
  std::vector<TokenId> tokens_ = {kNoToken};  // by trie node
  std::vector<double> scores_;                // by id
  size_t max_bytes_ = 0;                      // of a token
  ByteTokens fallback_;
  TokenId unknown_ = kNoToken;
  double unknown_score_ = 0;
  bool fuse_unknown_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const WordModel>> CreateUnigramModel(const TokenizerSpec& spec,
                                                                    const Vocabulary& vocabulary) {
  return UnigramModel::Create(spec, vocabulary);
}

}  // namespace acuity::engine
