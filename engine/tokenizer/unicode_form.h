// Unicode's normal forms.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace acuity::engine {

enum class UnicodeForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// `text` in `form`. O(n log n) for any text, however many marks follow one letter.
// REQUIRES: `text` is valid UTF-8 of less than 2^29 bytes.
std::string ToUnicodeForm(UnicodeForm form, std::string_view text);

}  // namespace acuity::engine
