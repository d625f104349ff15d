#include "engine/tokenizer/utf8.h"

#include <algorithm>
#include <cstring>

namespace acuity::engine {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bounds of the second byte after `lead`: excludes overlong forms, surrogates and codes above
// U+10FFFF.
struct Lead {
  size_t length = 0;  // 0: not a lead byte
  uint8_t low = 0x80, high = 0xBF;
};

Lead ClassifyLead(uint8_t lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xC2) return {0};
  if (lead < 0xE0) return {2};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

// Bytes of `text` from `pos` on that are ASCII, counted eight at a time (may stop up to 7 early).
size_t SkipAscii(std::string_view text, size_t pos) {
  while (pos + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + pos, 8);
    if (word & 0x8080808080808080u) break;
    pos += 8;
  }
  return pos;
}

}  // namespace

Utf8Char DecodeUtf8(std::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const Lead lead = ClassifyLead(first);
  if (lead.length == 0) return {0, 1, Utf8Char::State::kInvalid};
  if (lead.length == 1) return {first, 1, Utf8Char::State::kValid};
  uint32_t code = first & (0x7Fu >> lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {0, i, Utf8Char::State::kTruncated};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {0, i, Utf8Char::State::kInvalid};
    code = code << 6 | (byte & 0x3F);
  }
  return {code, lead.length, Utf8Char::State::kValid};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    pos = SkipAscii(text, pos);
    if (pos == text.size()) break;
    const Utf8Char c = DecodeUtf8(text.substr(pos));
    if (c.state != Utf8Char::State::kValid) return pos;
    pos += c.length;
  }
  return pos;
}

size_t AppendRepaired(std::string_view bytes, bool final, std::string* out) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    const size_t valid = ValidUtf8Prefix(bytes.substr(pos));
    out->append(bytes, pos, valid);
    pos += valid;
    if (pos == bytes.size()) break;
    const Utf8Char c = DecodeUtf8(bytes.substr(pos));
    if (c.state == Utf8Char::State::kTruncated && !final) break;
    out->append(kReplacement);
    pos += c.length;
  }
  return pos;
}

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

bool IsPythonSpace(uint32_t code) {
  if (code <= 0x20) return (code >= 0x09 && code <= 0x0D) || code >= 0x1C;
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

}  // namespace acuity::engine
