// UTF-8: validation, repair and the character classes that both the tokenizer and chat templates
// need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace acuity::engine {

struct Utf8Char {
  enum class State : uint8_t {
    kValid,
    kInvalid,    // `length` bytes (a maximal subpart) can never become a character
    kTruncated,  // the text ends inside what may still become a character
  };
  uint32_t code = 0;  // only if kValid
  size_t length = 0;  // bytes; 1..4
  State state = State::kInvalid;
};

// The character at the start of `text`. REQUIRES: !text.empty().
Utf8Char DecodeUtf8(std::string_view text);

// Length of the longest valid prefix; text.size() if all of it is valid.
size_t ValidUtf8Prefix(std::string_view text);

// Appends `bytes`, with U+FFFD for each maximal invalid subpart (as Unicode recommends and as
// Python and Rust do). Returns the bytes consumed: all of them if `final`, else all but a truncated
// character at the end (< 4 bytes).
size_t AppendRepaired(std::string_view bytes, bool final, std::string* out);

void AppendUtf8(uint32_t code, std::string* out);

// Python's str.isspace(), which str.strip() and thus templates use.
bool IsPythonSpace(uint32_t code);

}  // namespace acuity::engine
