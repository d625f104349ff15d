#include "engine/tokenizer/added_tokens.h"

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/character_class.h"

namespace acuity::engine {

absl::Status AddedTokens::Add(std::string_view text, const AddedToken& token, bool control) {
  if (text.empty() || text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("added token ", token.id, " has ", text.size(),
                                                   " bytes; it must have 1 to ", kMaxBytes));
  }
  const ByteTrie::Node node = trie_.Insert(text);
  ends_.resize(trie_.size(), kNone);
  if (ends_[node] != kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("added tokens ", tokens_[static_cast<size_t>(ends_[node])].spec.id, " and ",
                     token.id, " have the same spelling"));
  }
  ends_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back({token, control});
  starts_[static_cast<uint8_t>(text[0])] = true;
  any_user_defined_ |= !control;
  return absl::OkStatus();
}

int32_t AddedTokens::Match(std::string_view text, size_t begin, size_t* end) const {
  int32_t best = kNone;
  ByteTrie::Node node = ByteTrie::kRoot;
  for (size_t pos = begin; pos < text.size();) {
    node = trie_.Child(node, static_cast<uint8_t>(text[pos]));
    if (node == ByteTrie::kNone) break;
    ++pos;
    if (ends_[node] == kNone) continue;
    best = ends_[node];
    *end = pos;
  }
  return best;
}

std::vector<AddedTokens::Found> AddedTokens::Find(std::string_view text,
                                                  const std::vector<TextRun>& trusted) const {
  std::vector<Found> found;
  if (trusted.empty() && !any_user_defined_) return found;
  auto run = trusted.begin();
  size_t free_from = 0;  // what lies before belongs to a token that was found
  for (size_t pos = 0; pos < text.size();) {
    size_t end = 0;
    const int32_t match = starts_[static_cast<uint8_t>(text[pos])] ? Match(text, pos, &end) : kNone;
    if (match == kNone) {
      ++pos;
      continue;
    }
    const size_t begin = pos;
    pos = end;
    const Token& token = tokens_[static_cast<size_t>(match)];
    while (run != trusted.end() && run->end <= begin) ++run;
    if (token.control && (run == trusted.end() || run->begin > begin || run->end < end)) continue;
    if (token.spec.whole_word && !IsWholeWord(text, begin, end)) continue;
    Found result{begin, end, token.spec.id};
    if (token.spec.takes_space_before) {
      result.begin = free_from + WithoutSpaceSuffix(text.substr(free_from, begin - free_from));
    }
    if (token.spec.takes_space_after) result.end += SpacePrefix(text.substr(end));
    found.push_back(result);
    pos = free_from = result.end;
  }
  return found;
}

}  // namespace acuity::engine
