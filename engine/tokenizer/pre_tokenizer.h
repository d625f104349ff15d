// Splits text into the words that byte-pair merging never crosses. Immutable after Create;
// thread-safe.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace acuity::engine {

class PreTokenizer {
 public:
  // `name` as in tokenizer.ggml.pre. InvalidArgument names the value and the supported ones.
  static absl::StatusOr<std::unique_ptr<const PreTokenizer>> Create(std::string_view name);
  ~PreTokenizer();

  // Appends the words of `text`, which together are `text` again. REQUIRES: `text` is valid UTF-8.
  absl::Status Split(std::string_view text, std::vector<std::string_view>* words) const;

  // True if a word that is a token as a whole is taken as that token, whatever the merges say.
  bool whole_word_first() const { return whole_word_first_; }

 private:
  struct Stage;
  PreTokenizer();

  std::vector<std::unique_ptr<Stage>> stages_;
  bool whole_word_first_ = false;
};

}  // namespace acuity::engine
