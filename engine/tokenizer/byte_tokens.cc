#include "engine/tokenizer/byte_tokens.h"

#include <cstdio>
#include <string>

namespace acuity::engine {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::optional<uint8_t> ParseByteToken(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling.back() != '>') {
    return std::nullopt;
  }
  const int high = HexDigit(spelling[3]), low = HexDigit(spelling[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

bool ByteTokens::Append(std::string_view character, std::vector<TokenId>* ids) const {
  const size_t size = ids->size();
  for (const char c : character) {
    const TokenId id = ids_[static_cast<uint8_t>(c)];
    if (id == kNoToken) {
      ids->resize(size);
      return false;
    }
    ids->push_back(id);
  }
  return true;
}

ByteTokens FindByteTokens(const TokenizerSpec& spec, const Vocabulary& vocabulary) {
  ByteTokens tokens;
  for (int b = 0; b < 256; ++b) {
    char spelling[8];
    std::snprintf(spelling, sizeof(spelling), "<0x%02X>", static_cast<unsigned>(b));
    const auto it = vocabulary.find(std::string_view(spelling));
    if (it != vocabulary.end() && (spec.kinds[it->second] == TokenKind::kByte)) {
      tokens.ids_[b] = it->second;
    }
  }
  return tokens;
}

}  // namespace acuity::engine
