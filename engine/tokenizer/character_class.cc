#include "engine/tokenizer/character_class.h"

#include <utf8proc.h>

#include "engine/tokenizer/utf8.h"

namespace acuity::engine {
namespace {

// The start of the last character. REQUIRES: !text.empty().
size_t LastCharacter(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

}  // namespace

bool IsSpace(uint32_t code) { return IsPythonSpace(code) && !(code >= 0x1C && code <= 0x1F); }

bool IsWord(uint32_t code) {
  if (code == 0x200C || code == 0x200D) return true;  // the joiners
  if (code >= 0x24B6 && code <= 0x24E9) return true;  // circled letters are alphabetic symbols
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

size_t SpacePrefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    const Utf8Char c = DecodeUtf8(text.substr(pos));
    if (!IsSpace(c.code)) break;
    pos += c.length;
  }
  return pos;
}

size_t WithoutSpaceSuffix(std::string_view text) {
  while (!text.empty()) {
    const size_t begin = LastCharacter(text);
    if (!IsSpace(DecodeUtf8(text.substr(begin)).code)) break;
    text = text.substr(0, begin);
  }
  return text.size();
}

bool IsWholeWord(std::string_view text, size_t begin, size_t end) {
  const std::string_view before = text.substr(0, begin);
  if (!before.empty() && IsWord(DecodeUtf8(before.substr(LastCharacter(before))).code))
    return false;
  return end == text.size() || !IsWord(DecodeUtf8(text.substr(end)).code);
}

}  // namespace acuity::engine
