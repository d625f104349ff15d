#include "engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine {
namespace {

// Only the interpreter counts strictly: some 8 steps for each byte of the longest prompt (4 MiB).
// No pattern of a known family needs more; a text that reaches it is refused instead of hanging.
constexpr uint32_t kMatchLimit = 32u << 20;

// One block per thread, for patterns whose groups nobody asks for.
pcre2_match_data* MatchData() {
  struct Free {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  thread_local const std::unique_ptr<pcre2_match_data, Free> data(
      pcre2_match_data_create(1, nullptr));
  return data.get();
}

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  bool jit = false;

  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::~Regex() = default;

absl::StatusOr<std::unique_ptr<const Regex>> Regex::Compile(const TextPattern& pattern) {
  if (pattern.text.empty() || pattern.text.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("pattern has ", pattern.text.size(),
                                                   " bytes; it must have 1 to ", kMaxPatternBytes));
  }
  std::string source = pattern.text;
  uint32_t options = PCRE2_UTF | PCRE2_LITERAL;
  if (pattern.is_regex) {
    absl::StatusOr<std::string> translated = TranslatePattern(source);
    if (!translated.ok()) return translated.status();
    source = *std::move(translated);
    options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE;
  }
  std::unique_ptr<Regex> regex(new Regex);
  regex->compiled_ = std::make_unique<Compiled>();
  Compiled& compiled = *regex->compiled_;
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled.code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(), options,
                                &error, &offset, nullptr);
  if (compiled.code == nullptr) {
    char message[128] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrCat("pattern: ", message, " near byte ", offset, " of its translation"));
  }
  compiled.context = pcre2_match_context_create(nullptr);
  if (compiled.context == nullptr) return absl::ResourceExhaustedError("out of memory");
  compiled.jit = pcre2_jit_compile(compiled.code, PCRE2_JIT_COMPLETE) == 0;  // else interpreted
  pcre2_set_match_limit(compiled.context, kMatchLimit);
  return std::unique_ptr<const Regex>(std::move(regex));
}

// PCRE2's result: > 0 match, PCRE2_ERROR_NOMATCH, or another error. `text` is known to be UTF-8;
// having PCRE2 check it again at every word would be quadratic.
int Regex::Find(std::string_view text, size_t from, Match* match) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  pcre2_match_data* const data = MatchData();
  if (data == nullptr) return PCRE2_ERROR_NOMEMORY;
  int rc = PCRE2_ERROR_JIT_STACKLIMIT;
  if (compiled_->jit) {
    rc = pcre2_jit_match(compiled_->code, subject, text.size(), from, 0, data, compiled_->context);
  }
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    rc = pcre2_match(compiled_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     data, compiled_->context);
  }
  if (rc < 0) return rc;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
  *match = {bounds[0], bounds[1]};
  return 1;
}

absl::Status Regex::FindAll(std::string_view text, std::vector<Match>* matches) const {
  matches->clear();
  for (size_t from = 0; from < text.size();) {
    Match match;
    const int rc = Find(text, from, &match);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("text: splitting it into words takes too long (PCRE2 error ", rc, ")"));
    }
    if (match.end > match.begin) {
      matches->push_back(match);
      from = match.end;
    } else {
      from = match.begin;
      if (from < text.size()) from += DecodeUtf8(text.substr(from)).length;
    }
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
