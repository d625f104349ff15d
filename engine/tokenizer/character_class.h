// White space and words, as Unicode defines them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace acuity::engine {

bool IsSpace(uint32_t code);  // White_Space
bool IsWord(
    uint32_t code);  // letters, marks, digits, connectors, joiners: a regular expression's \w

// All of them: REQUIRES `text` is valid UTF-8.
// Bytes of white space at the start.
size_t SpacePrefix(std::string_view text);
// Bytes without the white space at the end.
size_t WithoutSpaceSuffix(std::string_view text);
// Neither the character before `begin` nor the one at `end` is one of a word.
bool IsWholeWord(std::string_view text, size_t begin, size_t end);

}  // namespace acuity::engine
