// Regular expressions of tokenizer files. Immutable after Compile; thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class Regex {
 public:
  static constexpr size_t kMaxPatternBytes = 16384;  // the longest known has 2 KB

  // Tokenizer files are written for Oniguruma: an expression is translated to PCRE2 where the two
  // differ (\s, \w, scripts, ^ and $, ...). InvalidArgument names the construct that is not
  // supported and where it is.
  static absl::StatusOr<std::unique_ptr<const Regex>> Compile(const TextPattern& pattern);
  ~Regex();

  struct Match {
    size_t begin = 0, end = 0;
  };
  // All matches that are not empty, from left to right, without overlap. InvalidArgument if the
  // text makes the expression take more steps than the match limit. REQUIRES: `text` is UTF-8.
  absl::Status FindAll(std::string_view text, std::vector<Match>* matches) const;

 private:
  Regex() = default;
  int Find(std::string_view text, size_t from, Match* match) const;

  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

// `pattern` in PCRE2's syntax, for UTF, UCP and MULTILINE. Errors as Compile's.
absl::StatusOr<std::string> TranslatePattern(std::string_view pattern);

}  // namespace acuity::engine
