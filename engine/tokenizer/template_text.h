// Python's string functions that the template language needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tokenizer/template_value.h"

namespace acuity::engine::jinja {

// The part of `text` without spaces, or without the characters of `set` if that is not null, at its
// ends.
std::pair<size_t, size_t> StripBounds(std::string_view text, const std::string_view* set, bool left,
                                      bool right);
// Byte offsets of the characters of `text`, and its size.
std::vector<size_t> CharacterOffsets(std::string_view text);
// Linear in the text.
size_t Find(std::string_view text, std::string_view needle, size_t from);

// Upper and lower case one character at a time, as the C library's C.UTF-8 says (and ß as SS).
// kTitle: a word begins after spaces and -({[<, as for Jinja's filter.
enum class Case : uint8_t { kUpper, kLower, kTitle, kCapitalize };
Text ChangeCase(const Text& text, Case to);
// With & < > ' " as HTML entities.
Text EscapeHtml(const Text& text);
// str.splitlines()
std::vector<Text> SplitLines(const Text& text);

// Appends repr(text): in quotes, with escapes.
void AppendRepr(const Text& text, Text* out);
// repr(value): the shortest decimal that reads back as `value`.
std::string FloatRepr(double value);

}  // namespace acuity::engine::jinja
