#include "engine/tokenizer/normaliser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/character_class.h"
#include "engine/tokenizer/unicode_form.h"

namespace acuity::engine {
namespace {

using Kind = NormaliserStep::Kind;

void Strip(const NormaliserStep& step, std::string* text, std::vector<TextRun>* runs) {
  if (step.right) text->resize(WithoutSpaceSuffix(*text));
  const size_t cut = step.left ? SpacePrefix(*text) : 0;
  text->erase(0, cut);
  for (TextRun& run : *runs) {
    run.begin = std::min(std::max(run.begin, cut) - cut, text->size());
    run.end = std::min(std::max(run.end, cut) - cut, text->size());
  }
}

// The steps that look at more than one character at a time: runs survive only if they are all or
// nothing.
void SetText(std::string changed, std::string* text, std::vector<TextRun>* runs) {
  if (changed == *text) return;
  const bool all =
      runs->size() == 1 && runs->front().begin == 0 && runs->front().end == text->size();
  *text = std::move(changed);
  runs->clear();
  if (all) runs->push_back({0, text->size()});
}

UnicodeForm FormOf(Kind kind) {
  switch (kind) {
    case Kind::kNfd:
      return UnicodeForm::kNfd;
    case Kind::kNfkc:
      return UnicodeForm::kNfkc;
    case Kind::kNfkd:
      return UnicodeForm::kNfkd;
    default:
      return UnicodeForm::kNfc;
  }
}

}  // namespace

absl::StatusOr<Normaliser> Normaliser::Create(const std::vector<NormaliserStep>& steps) {
  Normaliser result;
  for (const NormaliserStep& spec : steps) {
    Step step{spec, nullptr, nullptr};
    absl::Status status;
    if (spec.kind == Kind::kReplace) {
      auto regex = Regex::Compile(spec.pattern);
      status = regex.status();
      if (regex.ok()) step.regex = *std::move(regex);
    } else if (spec.kind == Kind::kPrecompiled) {
      auto map = CharacterMap::Create(spec.content);
      status = map.status();
      if (map.ok()) step.map = *std::move(map);
      step.spec.content.clear();
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("normaliser step ", result.steps_.size(), ": ", status.message()));
    }
    result.steps_.push_back(std::move(step));
  }
  return result;
}

absl::Status Normaliser::Replace(const Step& step, std::string* text, std::vector<TextRun>* runs) {
  std::vector<Regex::Match> matches;
  if (absl::Status status = step.regex->FindAll(*text, &matches); !status.ok()) return status;
  if (matches.empty()) return absl::OkStatus();
  const std::string& content = step.spec.content;
  if (text->size() + matches.size() * content.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: becomes longer than ", kMaxBytes, " bytes when normalised"));
  }
  std::string result;
  result.reserve(text->size());
  std::vector<TextRun> moved;
  auto run = runs->begin();
  size_t pos = 0;
  // Copies [pos, end) and the runs that begin there; a run that a match cuts ends before it.
  const auto copy_until = [&](size_t end) {
    const size_t shift_from = pos, shift_to = result.size();
    result.append(*text, pos, end - pos);
    for (; run != runs->end() && run->begin < end; ++run) {
      const size_t begin = std::max(run->begin, shift_from);
      if (begin < std::min(run->end, end)) {
        const TextRun part{begin - shift_from + shift_to,
                           std::min(run->end, end) - shift_from + shift_to};
        if (!moved.empty() && moved.back().end == part.begin) {
          moved.back().end = part.end;
        } else {
          moved.push_back(part);
        }
      }
      if (run->end > end) return;  // goes on behind the match
    }
  };
  for (const Regex::Match& match : matches) {
    copy_until(match.begin);
    while (run != runs->end() && run->end <= match.begin) ++run;
    const bool covered = run != runs->end() && run->begin <= match.begin && run->end >= match.end;
    const size_t begin = result.size();
    result += content;
    if (covered) {
      if (!moved.empty() && moved.back().end == begin) {
        moved.back().end = result.size();
      } else {
        moved.push_back({begin, result.size()});
      }
    }
    pos = match.end;
  }
  copy_until(text->size());
  *text = std::move(result);
  *runs = std::move(moved);
  return absl::OkStatus();
}

absl::Status Normaliser::ApplyStep(const Step& step, std::string* text,
                                   std::vector<TextRun>* runs) {
  switch (step.spec.kind) {
    case Kind::kNfc:
    case Kind::kNfd:
    case Kind::kNfkc:
    case Kind::kNfkd:
      SetText(ToUnicodeForm(FormOf(step.spec.kind), *text), text, runs);
      return absl::OkStatus();
    case Kind::kPrepend: {
      if (text->empty()) return absl::OkStatus();
      const size_t size = step.spec.content.size();
      text->insert(0, step.spec.content);
      for (TextRun& run : *runs) {
        // What is put in front of a trusted text is as trusted.
        if (run.begin > 0) run.begin += size;
        run.end += size;
      }
      return absl::OkStatus();
    }
    case Kind::kReplace:
      return Replace(step, text, runs);
    case Kind::kStrip:
      Strip(step.spec, text, runs);
      return absl::OkStatus();
    case Kind::kPrecompiled:
      SetText(step.map->Apply(*text), text, runs);
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status Normaliser::Apply(std::string* text, std::vector<TextRun>* runs) const {
  for (const Step& step : steps_) {
    if (absl::Status status = ApplyStep(step, text, runs); !status.ok()) return status;
    if (text->size() > kMaxBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("text: becomes longer than ", kMaxBytes, " bytes when normalised"));
    }
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
