#include "engine/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::engine {
namespace {

using Behaviour = PreTokenizerStep::Behaviour;
using Kind = PreTokenizerStep::Kind;
using Prefix = PreTokenizerStep::Prefix;

// A stretch of a word: a match, or what lies between two.
struct Piece {
  size_t begin = 0, end = 0;
  bool is_match = false;
};

std::vector<Piece> Alternate(size_t size, const std::vector<Regex::Match>& matches, bool invert) {
  std::vector<Piece> pieces;
  pieces.reserve(2 * matches.size() + 1);
  size_t pos = 0;
  for (const Regex::Match& match : matches) {
    if (match.begin > pos) pieces.push_back({pos, match.begin, invert});
    pieces.push_back({match.begin, match.end, !invert});
    pos = match.end;
  }
  if (pos < size) pieces.push_back({pos, size, invert});
  return pieces;
}

// Joins neighbours as `behaviour` says. A run of matches that follow each other stays apart: only
// its first (or last) joins the text before (or after) it.
void Join(Behaviour behaviour, std::vector<Piece>* pieces) {
  std::vector<Piece> joined;
  joined.reserve(pieces->size());
  switch (behaviour) {
    case Behaviour::kIsolated:
      return;
    case Behaviour::kRemoved:
      std::erase_if(*pieces, [](const Piece& piece) { return piece.is_match; });
      return;
    case Behaviour::kContiguous:
      for (const Piece& piece : *pieces) {
        if (!joined.empty() && joined.back().is_match == piece.is_match) {
          joined.back().end = piece.end;
        } else {
          joined.push_back(piece);
        }
      }
      break;
    case Behaviour::kMergedWithPrevious:
      for (size_t i = 0; i < pieces->size(); ++i) {
        const Piece& piece = (*pieces)[i];
        if (i > 0 && piece.is_match && !(*pieces)[i - 1].is_match) {
          joined.back().end = piece.end;
        } else {
          joined.push_back(piece);
        }
      }
      break;
    case Behaviour::kMergedWithNext:
      for (size_t i = 0; i < pieces->size(); ++i) {
        const Piece& piece = (*pieces)[i];
        if (i > 0 && !piece.is_match && (*pieces)[i - 1].is_match) {
          joined.back().end = piece.end;
        } else {
          joined.push_back(piece);
        }
      }
      break;
  }
  pieces->swap(joined);
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const std::vector<PreTokenizerStep>& steps) {
  PreTokenizer result;
  for (const PreTokenizerStep& spec : steps) {
    Step step{spec, nullptr};
    if (spec.kind == Kind::kSplit) {
      auto regex = Regex::Compile(spec.pattern);
      if (!regex.ok()) {
        return absl::InvalidArgumentError(absl::StrCat("pre-tokenizer step ", result.steps_.size(),
                                                       ": ", regex.status().message()));
      }
      step.regex = *std::move(regex);
    } else if (spec.content.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("pre-tokenizer step ", result.steps_.size(), ": its content is empty"));
    }
    result.steps_.push_back(std::move(step));
  }
  return result;
}

absl::Status PreTokenizer::SplitWords(const Step& step, const std::vector<std::string_view>& in,
                                      std::vector<std::string_view>* out) {
  std::vector<Regex::Match> matches;
  for (const std::string_view word : in) {
    if (absl::Status status = step.regex->FindAll(word, &matches); !status.ok()) return status;
    std::vector<Piece> pieces = Alternate(word.size(), matches, step.spec.invert);
    Join(step.spec.behaviour, &pieces);
    for (const Piece& piece : pieces) {
      out->push_back(word.substr(piece.begin, piece.end - piece.begin));
    }
  }
  return absl::OkStatus();
}

void PreTokenizer::Rewrite(const PreTokenizerStep& step, bool at_start, Words* words) {
  std::string text;
  std::vector<size_t> ends;
  ends.reserve(words->words.size());
  for (size_t i = 0; i < words->words.size(); ++i) {
    const std::string_view word = words->words[i];
    const bool metaspace = step.kind == Kind::kMetaspace;
    const bool has_prefix = word.starts_with(step.content) || (metaspace && word.starts_with(' '));
    const bool wants_prefix = !metaspace || step.prefix == Prefix::kAlways ||
                              (step.prefix == Prefix::kFirst && at_start && i == 0);
    if (wants_prefix && !has_prefix) text += step.content;
    for (const char c : word) {
      if (metaspace && c == ' ') {
        text += step.content;
      } else {
        text += c;
      }
    }
    ends.push_back(text.size());
  }
  words->storage = std::move(text);
  size_t begin = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    words->words[i] = std::string_view(words->storage).substr(begin, ends[i] - begin);
    begin = ends[i];
  }
}

absl::Status PreTokenizer::Split(std::string_view text, bool at_start, Words* out) const {
  out->words.clear();
  if (!text.empty()) out->words.push_back(text);
  std::vector<std::string_view> next;
  const char* start = text.data();
  for (const Step& step : steps_) {
    if (step.spec.kind != Kind::kSplit) {
      at_start = at_start && !out->words.empty() && out->words[0].data() == start;
      Rewrite(step.spec, at_start, out);
      start = out->storage.data();
      continue;
    }
    next.clear();
    if (absl::Status status = SplitWords(step, out->words, &next); !status.ok()) return status;
    out->words.swap(next);
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
