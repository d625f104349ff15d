#include "engine/tokenizer/special_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace acuity::engine {

absl::Status SpecialTokens::Add(std::string_view text, TokenId id, bool control) {
  if (text.empty() || text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("special token ", id, " has ", text.size(), " bytes (1 to ", kMaxBytes, ")"));
  }
  uint64_t node = 0;
  for (const char c : text) {
    const auto [it, fresh] =
        children_.try_emplace(node << 8 | static_cast<uint8_t>(c), uint32_t(nodes_.size()));
    if (fresh) nodes_.emplace_back();
    node = it->second;
  }
  nodes_[node] = {id, control};
  starts_[static_cast<uint8_t>(text[0])] = true;
  any_user_defined_ |= !control;
  return absl::OkStatus();
}

std::vector<SpecialTokens::Found> SpecialTokens::Find(std::string_view text,
                                                      const std::vector<Run>& trusted) const {
  std::vector<Found> found;
  if (trusted.empty() && !any_user_defined_) return found;
  auto run = trusted.begin();
  for (size_t pos = 0; pos < text.size();) {
    if (!starts_[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    while (run != trusted.end() && run->end <= pos) ++run;
    const size_t trusted_end = run != trusted.end() && run->begin <= pos ? run->end : 0;
    Found best;
    uint64_t node = 0;
    for (size_t end = pos; end < text.size();) {
      const auto it = children_.find(node << 8 | static_cast<uint8_t>(text[end]));
      if (it == children_.end()) break;
      node = it->second;
      ++end;
      if (nodes_[node].id >= 0 && (!nodes_[node].control || end <= trusted_end)) {
        best = {pos, end, nodes_[node].id};
      }
    }
    if (best.end > 0) found.push_back(best);
    pos = std::max(best.end, pos + 1);
  }
  return found;
}

}  // namespace acuity::engine
