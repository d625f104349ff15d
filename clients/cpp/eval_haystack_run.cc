#include <algorithm>
#include <stdexcept>
#include <utility>

#include "clients/cpp/eval_haystack.h"
#include "clients/cpp/eval_outcome.h"
#include "clients/cpp/eval_run.h"

namespace acuity::client {
namespace {

constexpr int kShortest = 512, kLongest = 8192;  // of the lengths that are chosen
constexpr int kAnswerTokens = 32;
constexpr int kMargin = 8;  // tokens that a cut may add where it meets the sentence

struct Cell {
  size_t arm, model;
  int length, depth, index;
};

class HaystackEvaluation {
 public:
  HaystackEvaluation(const CommonOptions& common, const EvalOptions& options,
                     const NeedleOptions& needle)
      : options_(options),
        needle_(needle),
        daemon_(common),
        arms_(daemon_.Arms(options.models)),
        outcomes_(arms_.size()) {
    for (const std::string& file : needle.text_files) text_ += ReadText(file);
    if (text_.size() > kMaxTextBytes) throw std::runtime_error("--text: more than 3 MiB together");
    const int context = SmallestContext(arms_);
    std::vector<int> lengths = needle.lengths;
    if (lengths.empty()) {
      for (int n = kShortest; n <= std::min(kLongest, context); n *= 2) lengths.push_back(n);
      if (lengths.empty()) lengths = {context};
    }
    lengths_ = FittingLengths(lengths, 2 * kAnswerTokens, context,
                              "what the question needs and the smallest context of the models");
  }

  Results Run() {
    std::vector<Job> jobs;
    for (size_t a = 0; a < arms_.size(); ++a) {
      outcomes_[a].resize(arms_[a].models.size());
      for (size_t m = 0; m < arms_[a].models.size(); ++m) {
        const v1::Model& model = arms_[a].models[m];
        haystacks_[model.name()] = MakeHaystack(model.name());
        overheads_[model.name()] = Overhead(model);
        for (int length : lengths_) AddJobs(a, m, length, jobs);
      }
    }
    RunJobs("needle", options_, jobs);
    return Gather();
  }

 private:
  Haystack MakeHaystack(const std::string& model) const {
    v1::Prompt prompt;
    prompt.set_text(text_);
    const v1::TokenizeResponse tokens = daemon_.Tokenize(model, prompt);
    Haystack haystack;
    for (const std::string& piece : tokens.tokens()) {
      haystack.text += piece;
      haystack.ends.push_back(haystack.text.size());
    }
    return haystack;
  }

  static v1::Prompt MakePrompt(const v1::Model& model, const std::string& text,
                               const Needle& needle) {
    v1::Prompt prompt;
    if (!model.chat()) {
      prompt.set_text(text + "\n\n" + needle.lead());
      return prompt;
    }
    v1::ChatMessage* message = prompt.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(text + "\n\n" + needle.question());
    return prompt;
  }

  // Tokens of a prompt besides the haystack's, and of the answer.
  int Overhead(const v1::Model& model) const {
    const Needle needle = MakeNeedle(options_.seed, 0);
    const v1::Prompt prompt = MakePrompt(model, needle.sentence(), needle);
    return daemon_.Tokenize(model.name(), prompt).token_ids_size() + kAnswerTokens + kMargin;
  }

  void AddJobs(size_t a, size_t m, int length, std::vector<Job>& jobs) {
    std::vector<NeedleOutcome>& outcomes = outcomes_[a][m][length];
    outcomes.resize(needle_.depths.size() * static_cast<size_t>(needle_.prompts));
    size_t next = 0;
    for (int depth : needle_.depths) {
      for (int i = 0; i < needle_.prompts; ++i) {
        jobs.push_back({length, [this, cell = Cell{a, m, length, depth, i},
                                 to = &outcomes[next++]] { *to = Ask(cell); }});
      }
    }
  }

  NeedleOutcome Ask(const Cell& cell) const {
    const v1::Model& model = arms_[cell.arm].models[cell.model];
    const Haystack& haystack = haystacks_.at(model.name());
    const uint64_t index =
        static_cast<uint64_t>(cell.depth) << 32 | static_cast<uint64_t>(cell.index);
    std::mt19937_64 random = GeneratorOf(options_.seed, index, static_cast<uint64_t>(cell.length));
    const Needle needle = MakeNeedle(options_.seed + static_cast<uint64_t>(cell.length), index);
    const int tokens = std::max(1, cell.length - overheads_.at(model.name()));
    size_t at = 0;
    const std::string text = Hide(haystack, Below(random, haystack.ends.size()),
                                  static_cast<size_t>(tokens), cell.depth, needle.sentence(), &at);

    v1::GenerateRequest request = GreedyRequest(daemon_, model.name(), kAnswerTokens);
    *request.mutable_prompt() = MakePrompt(model, text, needle);
    Watch(model.name(), needle, &request);
    const Generated answer = daemon_.Generate(request);
    NeedleOutcome outcome;
    outcome.asked = 1;
    outcome.found = answer.text.find(needle.number) != std::string::npos;
    outcome.AddSpans(answer.result.prompt_spans());
    return outcome;
  }

  // Where the sentence is among the prompt's tokens, whatever the template put before it.
  void Watch(const std::string& model, const Needle& needle, v1::GenerateRequest* request) const {
    const v1::TokenizeResponse tokens = daemon_.Tokenize(model, request->prompt());
    const std::vector<std::string> pieces(tokens.tokens().begin(), tokens.tokens().end());
    std::string text;
    for (const std::string& piece : pieces) text += piece;
    const std::string sentence = needle.sentence();
    const size_t begin = text.find(sentence);
    if (begin == std::string::npos) {
      throw std::runtime_error(model + ": its tokens do not spell the needle's sentence");
    }
    const TokenPart part = TokensOfBytes(pieces, begin, begin + sentence.size() - 1);
    v1::TokenSpan* span = request->add_watch();
    span->set_begin(part.first);
    span->set_end(part.last);
  }

  Map MakeMap(size_t a) const {
    Map map;
    map.id = "accuracy:" + arms_[a].label;
    map.title = arms_[a].label;
    map.about = "needles found, of those asked for";
    map.row_label = "depth in percent";
    map.column_label = "prompt tokens n";
    map.low = "0, none";
    map.high = "1, all";
    for (int length : lengths_) map.columns.push_back(std::to_string(length));
    for (size_t d = 0; d < needle_.depths.size(); ++d) {
      map.rows.push_back(std::to_string(needle_.depths[d]));
      std::vector<std::optional<double>>& row = map.cells.emplace_back();
      for (int length : lengths_) {
        Mean found;
        for (const auto& by_length : outcomes_[a]) {
          for (int i = 0; i < needle_.prompts; ++i) {
            found.Add(by_length.at(length)[d * static_cast<size_t>(needle_.prompts) + i].found);
          }
        }
        row.push_back(found.value());
      }
    }
    return map;
  }

  Results Gather() const {
    Results results;
    results.kind = "needle";
    results.title = "A sentence in a haystack of text";
    results.bars = kNeedleBars;
    results.options = {{"texts", needle_.text_files},
                       {"depths", needle_.depths},
                       {"prompts", needle_.prompts},
                       {"seed", options_.seed},
                       {"lengths", lengths_}};
    results.models = ArmsJson(arms_);
    AddNeedleCurves(arms_, outcomes_, &results);
    for (size_t a = 0; a < arms_.size(); ++a) results.maps.push_back(MakeMap(a));
    return results;
  }

  const EvalOptions& options_;
  const NeedleOptions& needle_;
  const EvalDaemon daemon_;
  const std::vector<Arm> arms_;
  std::string text_;
  std::vector<int> lengths_;
  std::map<std::string, Haystack> haystacks_;  // by model
  std::map<std::string, int> overheads_;       // by model, tokens
  std::vector<NeedleOutcomes> outcomes_;       // [arm], a length's prompts by depth
};

}  // namespace

int EvalHaystack(const CommonOptions& common, const EvalOptions& options,
                 const NeedleOptions& needle) {
  return Deliver(HaystackEvaluation(common, options, needle).Run(), common, options);
}

}  // namespace acuity::client
