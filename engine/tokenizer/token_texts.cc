#include "engine/tokenizer/token_texts.h"

#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/byte_tokens.h"

namespace acuity::engine {
namespace {

void ReplaceAll(std::string_view from, std::string_view to, std::string* text) {
  if (from.empty() || text->find(from) == std::string::npos) return;
  std::string result;
  for (size_t pos = 0;;) {
    const size_t at = text->find(from, pos);
    result.append(*text, pos, at - pos);  // npos - pos: the rest
    if (at == std::string::npos) break;
    result += to;
    pos = at + from.size();
  }
  text->swap(result);
}

}  // namespace

std::string TokenTexts::Make(TokenId id, bool first) const {
  const DecoderSpec& decoder = spec_->decoder;
  const auto spelling = spellings_.find(id);
  std::string text = spelling == spellings_.end() ? spec_->tokens[id] : spelling->second;
  if (first) ReplaceAll(decoder.first_token_drops, "", &text);
  for (const auto& [from, to] : decoder.replacements) ReplaceAll(from, to, &text);
  if (decoder.byte_fallback && spec_->kinds[id] == TokenKind::kByte) {
    if (const auto byte = ParseByteToken(text)) text.assign(1, static_cast<char>(*byte));
  }
  if (!spec_->byte_level) return text;
  std::string bytes;
  AppendSpelledBytes(text, &bytes);
  return bytes;
}

absl::StatusOr<TokenTexts> TokenTexts::Create(const TokenizerSpec* spec, Spellings spellings) {
  TokenTexts texts;
  texts.spec_ = spec;
  texts.spellings_ = std::move(spellings);
  texts.offsets_.reserve(spec->tokens.size() + 1);
  texts.offsets_.push_back(0);
  for (size_t i = 0; i < spec->tokens.size(); ++i) {
    texts.bytes_ += texts.Make(static_cast<TokenId>(i), /*first=*/false);
    if (texts.bytes_.size() > std::numeric_limits<uint32_t>::max()) {
      return absl::InvalidArgumentError("tokenizer.tokens: their texts have more than 4 GiB");
    }
    texts.offsets_.push_back(static_cast<uint32_t>(texts.bytes_.size()));
  }
  return texts;
}

}  // namespace acuity::engine
