#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/tokenizer/template_text.h"

#include <locale.h>
#include <pcre2.h>
#include <string.h>
#include <wctype.h>

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine::jinja {
namespace {

uint32_t ToCase(uint32_t code, bool upper) {
  static const locale_t kLocale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (code < 0x80 || kLocale == nullptr) {
    const uint32_t c = code | 0x20;
    if (c < 'a' || c > 'z') return code;
    return upper ? c - 0x20 : c;
  }
  return upper ? towupper_l(code, kLocale) : towlower_l(code, kLocale);
}

// str.isprintable(): neither separator (but the space) nor control, format, unassigned and the
// like.
bool IsPrintable(std::string_view character) {
  static pcre2_code* const kPattern = [] {
    int error = 0;
    PCRE2_SIZE offset = 0;
    return pcre2_compile(reinterpret_cast<PCRE2_SPTR>("[\\p{C}\\p{Z}]"), PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF, &error, &offset, nullptr);
  }();
  if (character == " ") return true;
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  const int found = pcre2_match(kPattern, reinterpret_cast<PCRE2_SPTR>(character.data()),
                                character.size(), 0, 0, data, nullptr);
  pcre2_match_data_free(data);
  return found == PCRE2_ERROR_NOMATCH;
}

}  // namespace

std::pair<size_t, size_t> StripBounds(std::string_view text, const std::string_view* set, bool left,
                                      bool right) {
  const auto strips = [&](std::string_view character) {
    if (set == nullptr) return IsPythonSpace(DecodeUtf8(character).code);
    // UTF-8 is self-synchronising, so finding the bytes finds the character.
    return set->find(character) != std::string_view::npos;
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const size_t length = DecodeUtf8(text.substr(begin, end - begin)).length;
    if (!strips(text.substr(begin, length))) break;
    begin += length;
  }
  while (right && begin < end) {
    size_t start = end - 1;
    while (start > begin && end - start < 4 && (text[start] & 0xC0) == 0x80) --start;
    if (!strips(text.substr(start, end - start))) break;
    end = start;
  }
  return {begin, end};
}

std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t pos = 0; pos < text.size(); pos += DecodeUtf8(text.substr(pos)).length) {
    offsets.push_back(pos);
  }
  offsets.push_back(text.size());
  return offsets;
}

// std::string_view::find is linear for short needles, memmem for all, but AddressSanitizer makes
// each call of memmem read the whole text.
size_t Find(std::string_view text, std::string_view needle, size_t from) {
  if (needle.size() > text.size() - from) return std::string_view::npos;
  if (needle.size() <= 16) return text.find(needle, from);
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found == nullptr ? std::string_view::npos : static_cast<const char*>(found) - text.data();
}

Text ChangeCase(const Text& text, Case to) {
  Text result;
  std::string changed;
  bool inside = false;  // a word
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = DecodeUtf8(text.bytes().substr(i));
    const bool upper = to == Case::kUpper || (to == Case::kTitle && !inside) ||
                       (to == Case::kCapitalize && i == 0);
    if (c.state != Utf8Char::State::kValid) {
      result.AppendPart(text, i, i + c.length);
    } else if (c.code == 0xDF && upper) {
      result.Append(to == Case::kUpper ? "SS" : "Ss", text.mark(i));
    } else {
      changed.clear();
      AppendUtf8(ToCase(c.code, upper), &changed);
      result.Append(changed, text.mark(i));
    }
    inside = !(c.state == Utf8Char::State::kValid &&
               (IsPythonSpace(c.code) || (c.code < 0x80 && strchr("-({[<", c.code) != nullptr)));
    i += c.length;
  }
  result.set_safe(text.safe());
  return result;
}

Text EscapeHtml(const Text& text) {
  static constexpr std::string_view kFrom = "&<>'\"";
  static constexpr const char* kTo[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  Text result;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t k = kFrom.find(text.bytes()[i]);
    result.Append(k == std::string_view::npos ? text.bytes().substr(i, 1) : kTo[k], text.mark(i));
  }
  return result;
}

std::vector<Text> SplitLines(const Text& text) {
  std::vector<Text> lines;
  const std::string_view bytes = text.bytes();
  size_t begin = 0;
  for (size_t i = 0; i < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes.substr(i));
    const bool ends = c.state == Utf8Char::State::kValid &&
                      ((c.code >= 0x0A && c.code <= 0x0D) || (c.code >= 0x1C && c.code <= 0x1E) ||
                       c.code == 0x85 || c.code == 0x2028 || c.code == 0x2029);
    size_t next = i + c.length;
    if (ends) {
      if (bytes.substr(i, 2) == "\r\n") ++next;
      lines.push_back(text.Part(begin, i));
      begin = next;
    }
    i = next;
  }
  if (begin < bytes.size()) lines.push_back(text.Part(begin, bytes.size()));
  return lines;
}

void AppendRepr(const Text& text, Text* out) {
  const std::string_view bytes = text.bytes();
  const bool has_single = bytes.find('\'') != std::string_view::npos;
  const char quote = has_single && bytes.find('"') == std::string_view::npos ? '"' : '\'';
  const std::string_view mark(&quote, 1);
  out->Append(mark, kTrusted);
  for (size_t i = 0; i < bytes.size();) {
    static constexpr std::string_view kFrom = "\\\n\r\t", kTo = "\\nrt";
    const Utf8Char c = DecodeUtf8(bytes.substr(i));
    const size_t k = kFrom.find(bytes[i]);
    if (bytes[i] == quote || k != std::string_view::npos) {
      const char escape[] = {'\\', bytes[i] == quote ? quote : kTo[k]};
      out->Append(std::string_view(escape, 2), text.mark(i));
    } else if (c.state != Utf8Char::State::kValid || IsPrintable(bytes.substr(i, c.length))) {
      out->AppendPart(text, i, i + c.length);
    } else {
      const std::string escape = c.code < 0x100     ? absl::StrFormat("\\x%02x", c.code)
                                 : c.code < 0x10000 ? absl::StrFormat("\\u%04x", c.code)
                                                    : absl::StrFormat("\\U%08x", c.code);
      out->Append(escape, text.mark(i));
    }
    i += c.length;
  }
  out->Append(mark, kTrusted);
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const double size = std::abs(value);
  const bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value,
                    scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer, end.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace acuity::engine::jinja
