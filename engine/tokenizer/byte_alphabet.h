// GPT-2's alphabet: a printable character for every byte. Bytes that are printable in Latin-1 stand
// for themselves, the other 68 are U+0100.. in order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace acuity::engine {

// The character of a byte, in UTF-8.
std::string SpellByte(uint8_t byte);

// Appends the bytes that `spelling` stands for, or, if it has a character outside the alphabet,
// `spelling` itself. REQUIRES: valid UTF-8.
void AppendSpelledBytes(std::string_view spelling, std::string* out);

}  // namespace acuity::engine
