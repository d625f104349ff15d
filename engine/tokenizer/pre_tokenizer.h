// Splits text into the words that the model never crosses. Immutable after Create; thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class PreTokenizer {
 public:
  // InvalidArgument names the step and what is wrong with its pattern.
  static absl::StatusOr<PreTokenizer> Create(const std::vector<PreTokenizerStep>& steps);

  // Words of one text, in order, none empty.
  struct Words {
    std::vector<std::string_view> words;
    std::string storage;  // what `words` view if a step changed the text
  };
  // `at_start`: nothing, not even a control token, comes before `text`. Views into `text` or into
  // out->storage, so *out may not be moved. REQUIRES: `text` is valid UTF-8.
  absl::Status Split(std::string_view text, bool at_start, Words* out) const;

 private:
  struct Step {
    PreTokenizerStep spec;
    std::unique_ptr<const Regex> regex;  // of kSplit, and of kMetaspace: its character
  };
  static absl::Status SplitWords(const Step& step, const std::vector<std::string_view>& in,
                                 std::vector<std::string_view>* out);
  static void Rewrite(const PreTokenizerStep& step, bool at_start, Words* words);

  std::vector<Step> steps_;
};

}  // namespace acuity::engine
