#include "engine/tokenizer/template_lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_text.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine::jinja {
namespace {

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Line ends become \n, and one at the very end is dropped, as Jinja does.
std::string NormaliseLineEnds(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormaliseLineEnds(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (status_.ok() && pos_ < source_.size()) LexTextAndTag();
    if (!status_.ok()) return status_;
    Emit(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(pos_); }
  bool At(std::string_view prefix) const { return rest().substr(0, prefix.size()) == prefix; }
  char Peek(size_t ahead) const {
    return pos_ + ahead < source_.size() ? source_[pos_ + ahead] : '\0';
  }

  void Emit(TokenType type, std::string text) { tokens_.push_back({type, std::move(text), line_}); }
  void Fail(const std::string& message) {
    if (status_.ok()) {
      status_ =
          absl::InvalidArgumentError(absl::StrCat("chat template, line ", line_, ": ", message));
    }
  }
  void Advance(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + pos_, source_.begin() + pos_ + n, '\n'));
    pos_ += n;
  }
  void SkipSpace() {
    const std::string_view text = rest();
    Advance(StripBounds(text, nullptr, /*left=*/true, /*right=*/false).first);
  }

  // Text up to the next tag, then the tag.
  void LexTextAndTag() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        Emit(TokenType::kText, source_.substr(pos_));
        Advance(source_.size() - pos_);
        return;
      }
      const char c = source_[tag + 1];
      if (c == '%' || c == '{' || c == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    std::string_view text = std::string_view(source_).substr(pos_, tag - pos_);
    const size_t text_size = text.size();
    if (sign == '-') {
      text = text.substr(0, StripBounds(text, nullptr, false, true).second);
    } else if (sign != '+' && kind != '{') {  // lstrip_blocks
      const size_t newline = text.rfind('\n');
      const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      const std::string_view indent = text.substr(begin);
      const bool blank = StripBounds(indent, nullptr, true, false).first == indent.size();
      if (blank && (newline != std::string_view::npos || line_start_)) text = text.substr(0, begin);
    }
    if (!text.empty()) Emit(TokenType::kText, std::string(text));
    Advance(text_size + 2 + (sign == '-' || sign == '+'));
    if (kind == '#') {
      LexComment();
    } else {
      LexTag(kind == '%');
    }
  }

  // The end of a tag was reached at `mark` ("%}", "}}" or "#}", maybe with a sign before it).
  void EndTag(size_t length, bool strip, bool trim_newline) {
    const size_t begin = pos_;
    Advance(length);
    if (strip) {
      SkipSpace();
    } else if (trim_newline && Peek(0) == '\n') {  // trim_blocks
      Advance(1);
    }
    line_start_ = pos_ > begin && source_[pos_ - 1] == '\n';
  }

  void LexComment() {
    const size_t end = source_.find("#}", pos_);
    if (end == std::string::npos) return Fail("comment without end");
    const char sign = end > pos_ ? source_[end - 1] : '\0';
    EndTag(end + 2 - pos_, sign == '-', sign != '+');
  }

  void LexTag(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    Emit(block ? TokenType::kBlockBegin : TokenType::kVariableBegin, "");
    int depth = 0;  // of brackets: "}}" may also close two of them
    while (status_.ok()) {
      SkipSpace();
      if (pos_ >= source_.size()) return Fail("tag without end");
      const bool signed_end = (At("-") || (block && At("+"))) && rest().substr(1, 2) == close;
      if (depth == 0 && (signed_end || At(close))) {
        const bool strip = At("-"), keep = At("+");
        Emit(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
        return EndTag(signed_end ? 3 : 2, strip, block && !keep);
      }
      const char c = Peek(0);
      if (IsNameStart(c)) {
        LexWhile(TokenType::kName, [](char x) { return IsNameStart(x) || IsDigit(x); });
      } else if (IsDigit(c)) {
        LexNumber();
      } else if (c == '\'' || c == '"') {
        LexString(c);
      } else {
        LexOperator(&depth);
      }
    }
  }

  template <typename Predicate>
  void LexWhile(TokenType type, Predicate predicate) {
    size_t n = 0;
    while (pos_ + n < source_.size() && predicate(source_[pos_ + n])) ++n;
    Emit(type, source_.substr(pos_, n));
    Advance(n);
  }

  // Digits, a fraction and an exponent. After a dot, as in `x.0.1`, digits only.
  void LexNumber() {
    const auto digits = [&](size_t n) {
      while (IsDigit(Peek(n))) ++n;
      return n;
    };
    const size_t whole = digits(0);
    size_t n = whole;
    if (tokens_.back().type != TokenType::kOperator || tokens_.back().text != ".") {
      if (Peek(n) == '.' && IsDigit(Peek(n + 1))) n = digits(n + 1);
      if (Peek(n) == 'e' || Peek(n) == 'E') {
        const size_t sign = Peek(n + 1) == '+' || Peek(n + 1) == '-' ? 1 : 0;
        if (IsDigit(Peek(n + 1 + sign))) n = digits(n + 1 + sign);
      }
    }
    Emit(n == whole ? TokenType::kInteger : TokenType::kFloat, source_.substr(pos_, n));
    Advance(n);
  }

  void LexOperator(int* depth) {
    for (const char* two : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (!At(two)) continue;
      Emit(TokenType::kOperator, two);
      return Advance(2);
    }
    const char c = Peek(0);
    if (std::string_view("()[]{}.,:|~+-*/%<>=").find(c) == std::string_view::npos) {
      const size_t length = DecodeUtf8(rest()).length;
      return Fail(absl::StrCat("unexpected '", source_.substr(pos_, length), "'"));
    }
    if (c == '(' || c == '[' || c == '{') ++*depth;
    if ((c == ')' || c == ']' || c == '}') && --*depth < 0) {
      return Fail(absl::StrCat("unbalanced '", std::string(1, c), "'"));
    }
    Emit(TokenType::kOperator, std::string(1, c));
    Advance(1);
  }

  void LexString(char quote) {
    std::string value;
    size_t i = pos_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] != '\\' || i + 1 >= source_.size()) {
        value.push_back(source_[i++]);
        continue;
      }
      i += Unescape(i + 1, &value) + 1;
    }
    if (i >= source_.size()) return Fail("string without end");
    Emit(TokenType::kString, std::move(value));
    Advance(i + 1 - pos_);
  }

  // Appends what the escape at `i` (after the backslash) means; returns its length. As in Python's
  // literals.
  size_t Unescape(size_t i, std::string* value) {
    static constexpr std::string_view kFrom = "nrtbfav\\'\"", kTo = "\n\r\t\b\f\a\v\\'\"";
    const char c = source_[i];
    if (c == '\n') return 1;
    if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
      value->push_back(kTo[k]);
      return 1;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      if (IsDigit(c)) Fail("octal escapes are not supported");
      value->push_back('\\');
      value->push_back(c);
      return 1;
    }
    uint32_t code = 0;
    for (size_t k = 1; k <= digits; ++k) {
      const char d = i + k < source_.size() ? source_[i + k] : '\0';
      const char lower = d | 0x20;
      if (!IsDigit(d) && (lower < 'a' || lower > 'f')) {
        Fail("damaged escape in a string");
        return 1;
      }
      code = code << 4 | static_cast<uint32_t>(IsDigit(d) ? d - '0' : lower - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      Fail("escape in a string is not a character");
      return 1;
    }
    AppendUtf8(code, value);
    return digits + 1;
  }

  const std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // the text at pos_ begins a line
  std::vector<Token> tokens_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace acuity::engine::jinja
