// Oniguruma's syntax -> PCRE2's. What is not known to mean the same in both is refused.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/regex.h"

namespace acuity::engine {
namespace {

// Insides of character classes. PCRE2's \s also takes U+180E; its \w lacks marks and connectors.
constexpr std::string_view kSpace = R"(\p{Z}\x09-\x0d\x{85})";
// The alphabetic characters, marks, decimal digits and connectors: Unicode's definition of \w.
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nl}\p{Nd}\p{Pc}\x{24b6}-\x{24e9})";
// Escapes that mean one character in both.
constexpr std::string_view kSameEscapes = "rnft";
constexpr std::string_view kGroups[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"};
// One- and two-letter names are general categories in both.
constexpr size_t kMaxCategoryLetters = 2;

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  absl::StatusOr<std::string> Run() {
    while (ok_ && pos_ < in_.size()) {
      const char c = in_[pos_];
      if (c == '\\') {
        Escape();
      } else if (in_class_) {
        InClass(c);
      } else {
        OutsideClass(c);
      }
    }
    if (ok_ && in_class_) Refuse("a class without its ']'");
    if (!ok_) return absl::InvalidArgumentError(error_);
    return std::move(out_);
  }

 private:
  void Refuse(const std::string& what) {
    if (!ok_) return;
    ok_ = false;
    error_ = absl::StrCat("regular expression: ", what, " at byte ", pos_, " is not supported");
  }

  bool At(std::string_view text) const { return in_.substr(pos_).starts_with(text); }

  void Copy(size_t bytes) {
    out_.append(in_, pos_, bytes);
    pos_ += bytes;
  }

  void InClass(char c) {
    if (c == '[') return Refuse("a class within a class");
    if (At("&&")) return Refuse("the intersection '&&'");
    if (c == ']') {
      if (pos_ == class_begin_) return Refuse("an empty class");
      in_class_ = false;
    }
    Copy(1);
  }

  void OutsideClass(char c) {
    if (c == '[') {
      in_class_ = true;
      Copy(At("[^") ? 2 : 1);
      class_begin_ = pos_;
      return;
    }
    if (At("(?")) {
      const auto* group = std::find_if(std::begin(kGroups), std::end(kGroups),
                                       [this](std::string_view open) { return At(open); });
      if (group == std::end(kGroups)) return Refuse("this kind of group");
      return Copy(group->size());
    }
    if (At("(*")) return Refuse("'(*'");
    if (c == '{') return Braces();
    Copy(1);
  }

  // {n}, {n,}, {n,m}, {,m}; any other brace is itself.
  void Braces() {
    size_t end = pos_ + 1;
    while (end < in_.size() && (absl::ascii_isdigit(in_[end]) || in_[end] == ',')) ++end;
    const std::string_view inside = in_.substr(pos_ + 1, end - pos_ - 1);
    const bool counts = end < in_.size() && in_[end] == '}' && !inside.empty() && inside != "," &&
                        std::count(inside.begin(), inside.end(), ',') <= 1;
    if (!counts) {
      out_ += "\\{";
      ++pos_;
      return;
    }
    // Greedy in Oniguruma, of the whole repetition; possessive in PCRE2.
    if (end + 1 < in_.size() && in_[end + 1] == '+') return Refuse("'+' behind a repetition");
    out_ += inside.starts_with(',') ? "{0" : "{";
    out_.append(inside);
    out_ += '}';
    pos_ = end + 1;
  }

  void Escape() {
    if (pos_ + 1 == in_.size()) return Refuse("'\\' at the end");
    const char c = in_[pos_ + 1];
    switch (c) {
      case 's':
        return Class(kSpace, false);
      case 'S':
        return Class(kSpace, true);
      case 'w':
        return Class(kWord, false);
      case 'W':
        return Class(kWord, true);
      case 'd':
        return Class(R"(\p{Nd})", false);
      case 'D':
        return Class(R"(\p{Nd})", true);
      case 'p':
      case 'P':
        return Property();
      case 'v':
        out_ += "\\x0b";
        pos_ += 2;
        return;
      case 'x':
      case 'u':
        return Code(c);
      default:
        break;
    }
    if (absl::ascii_isalnum(c) && kSameEscapes.find(c) == std::string_view::npos) {
      return Refuse(absl::StrCat("'\\", std::string(1, c), "'"));
    }
    if (absl::ascii_isascii(c)) return Copy(2);
    ++pos_;  // an escaped character beyond ASCII is itself
  }

  void Class(std::string_view inside, bool negated) {
    if (in_class_) {
      if (negated) return Refuse("a negated escape within a class");
      out_.append(inside);
    } else {
      absl::StrAppend(&out_, negated ? "[^" : "[", std::string(inside), "]");
    }
    pos_ += 2;
  }

  // \p{L}, \p{^L}, \P{L}, \p{Han}: scripts are Script in Oniguruma, Script_Extensions in PCRE2.
  void Property() {
    const size_t close = in_.find('}', pos_);
    if (pos_ + 2 >= in_.size() || in_[pos_ + 2] != '{' || close == std::string_view::npos) {
      return Refuse("a property without its braces");
    }
    std::string_view name = in_.substr(pos_ + 3, close - pos_ - 3);
    bool negated = in_[pos_ + 1] == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const bool letters = !name.empty() && std::all_of(name.begin(), name.end(), [](char letter) {
      return absl::ascii_isalpha(letter) || letter == '_';
    });
    if (!letters) return Refuse("this property");
    absl::StrAppend(&out_, negated ? "\\P{" : "\\p{",
                    name.size() > kMaxCategoryLetters ? "sc:" : "", std::string(name), "}");
    pos_ = close + 1;
  }

  // \x41, \x{2581}, \u2581.
  void Code(char kind) {
    size_t begin = pos_ + 2, end = begin;
    const bool braces = kind == 'x' && begin < in_.size() && in_[begin] == '{';
    if (braces) end = ++begin;
    const size_t most = kind == 'u' ? 4 : braces ? 6 : 2;
    while (end < in_.size() && end - begin < most && absl::ascii_isxdigit(in_[end])) ++end;
    const std::string digits(in_.substr(begin, end - begin));
    const bool whole =
        braces ? end < in_.size() && in_[end] == '}' && !digits.empty() : digits.size() == most;
    // Two digits beyond ASCII are a byte in Oniguruma, not a character.
    if (!whole || (most == 2 && digits[0] > '7')) return Refuse("this character code");
    absl::StrAppend(&out_, "\\x{", digits, "}");
    pos_ = end + (braces ? 1 : 0);
  }

  const std::string_view in_;
  std::string out_, error_;
  size_t pos_ = 0;
  size_t class_begin_ = 0;  // of the class's first member
  bool in_class_ = false;
  bool ok_ = true;
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace acuity::engine
