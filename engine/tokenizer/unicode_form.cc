#include "engine/tokenizer/unicode_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine {
namespace {

// No character decomposes into more (U+FDFA is the longest).
constexpr size_t kMaxDecomposition = 18;

int CombiningClass(int32_t code) { return utf8proc_get_property(code)->combining_class; }

// utf8proc sorts each run of marks by exchanging neighbours, which is quadratic in its length: so
// the decomposition and the sorting are done here, and only the composition there.
std::vector<int32_t> Decompose(std::string_view text, utf8proc_option_t options) {
  std::vector<int32_t> codes;
  codes.reserve(text.size() + kMaxDecomposition);
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(pos));
    pos += c.length;
    const size_t size = codes.size();
    codes.resize(size + kMaxDecomposition);
    int last_boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<int32_t>(c.code), codes.data() + size,
                                               kMaxDecomposition, options, &last_boundary);
    ACUITY_CHECK(count >= 0 && static_cast<size_t>(count) <= kMaxDecomposition);
    codes.resize(size + static_cast<size_t>(count));
  }
  return codes;
}

void SortMarks(std::vector<int32_t>* codes) {
  std::vector<std::pair<int, int32_t>> run;  // class, code
  for (size_t begin = 0; begin < codes->size();) {
    run.clear();
    for (size_t i = begin; i < codes->size(); ++i) {
      const int mark_class = CombiningClass((*codes)[i]);
      if (mark_class == 0) break;
      run.emplace_back(mark_class, (*codes)[i]);
    }
    if (run.size() > 1) {
      std::stable_sort(run.begin(), run.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t i = 0; i < run.size(); ++i) (*codes)[begin + i] = run[i].second;
    }
    begin += run.size() + 1;
  }
}

}  // namespace

std::string ToUnicodeForm(UnicodeForm form, std::string_view text) {
  const auto is_ascii = [](char c) { return static_cast<uint8_t>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  const bool compatibility = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  std::vector<int32_t> codes =
      Decompose(text, static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                     (compatibility ? UTF8PROC_COMPAT : 0)));
  SortMarks(&codes);
  if (form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc) {
    const auto size = utf8proc_normalize_utf32(
        codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    ACUITY_CHECK(size >= 0);
    codes.resize(static_cast<size_t>(size));
  }
  std::string result;
  result.reserve(text.size());
  for (const int32_t code : codes) AppendUtf8(static_cast<uint32_t>(code), &result);
  return result;
}

}  // namespace acuity::engine
