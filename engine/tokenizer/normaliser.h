// Rewrites text before it is split: Unicode forms, replacements, the space in front. Immutable
// after Create; thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/character_map.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/text_run.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

class Normaliser {
 public:
  // InvalidArgument names the step and what is wrong with it.
  static absl::StatusOr<Normaliser> Create(const std::vector<NormaliserStep>& steps);

  bool empty() const { return steps_.empty(); }

  // Rewrites *text, and moves the bounds of *runs along. A run is given up where it cannot be told
  // which of the new bytes it covers: what is left of *runs is never too much.
  // InvalidArgument if the text would become longer than kMaxBytes or takes a pattern too many
  // steps. REQUIRES: *text is valid UTF-8; *runs is ascending and disjoint.
  absl::Status Apply(std::string* text, std::vector<TextRun>* runs) const;

  static constexpr size_t kMaxBytes = size_t{1} << 28;

 private:
  struct Step {
    NormaliserStep spec;
    std::unique_ptr<const Regex> regex;       // of kReplace
    std::unique_ptr<const CharacterMap> map;  // of kPrecompiled
  };
  static absl::Status ApplyStep(const Step& step, std::string* text, std::vector<TextRun>* runs);
  static absl::Status Replace(const Step& step, std::string* text, std::vector<TextRun>* runs);

  std::vector<Step> steps_;
};

}  // namespace acuity::engine
