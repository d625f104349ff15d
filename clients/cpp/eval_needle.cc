#include <memory>
#include <utility>

#include "clients/cpp/eval_recall.h"
#include "clients/cpp/eval_run.h"

namespace acuity::client {
namespace {

constexpr int kDefaultDoublings = 5;  // lengths 1 to 32 times the trained one

// What one model answered, in the order of the queries.
struct PromptOutcome {
  int correct = 0;
};

// Asks for each query's value in turn; each prompt is the one before with four tokens more at the
// most, so all but its end is found in the prefix cache.
PromptOutcome Ask(const EvalDaemon& daemon, const std::string& model, const RecallPrompt& prompt) {
  PromptOutcome outcome;
  v1::GenerateRequest request = GreedyRequest(daemon, model, 1);
  request.mutable_sampling()->set_ignore_eos(true);
  auto* ids = request.mutable_prompt()->mutable_token_ids()->mutable_ids();
  for (const RecallPrompt::Query& query : prompt.queries) {
    ids->Assign(prompt.tokens.begin(), prompt.tokens.begin() + query.key + 1);
    const Generated answer = daemon.Generate(request);
    outcome.correct += !answer.token_ids.empty() && answer.token_ids[0] == query.value;
  }
  return outcome;
}

std::vector<int> DefaultLengths(const RecallTask& task, int longest) {
  std::vector<int> lengths;
  for (int i = 0; i <= kDefaultDoublings; ++i) {
    if (task.trained_length << i <= longest) lengths.push_back(task.trained_length << i);
  }
  return lengths;
}

class RecallEvaluation {
 public:
  RecallEvaluation(const CommonOptions& common, const EvalOptions& options,
                   const NeedleOptions& needle)
      : common_(common),
        options_(options),
        needle_(needle),
        daemon_(common),
        task_(ParseRecallTask(ReadFile(needle.task_file), needle.task_file)),
        arms_(daemon_.Arms(options.models)) {
    const int longest = SmallestContext(arms_);
    std::vector<int> lengths = needle.lengths;
    if (lengths.empty()) lengths = DefaultLengths(task_, longest);
    lengths_ = FittingLengths(lengths, task_.min_length(), longest,
                              "what the pairs need and the smallest context of the models");
    for (const Arm& arm : arms_) {
      for (const v1::Model& model : arm.models) CheckVocabulary(model);
    }
  }

  Results Run() {
    std::vector<Job> jobs;
    outcomes_.resize(arms_.size());
    for (size_t a = 0; a < arms_.size(); ++a) outcomes_[a].resize(arms_[a].models.size());
    for (int length : lengths_) {
      for (size_t a = 0; a < arms_.size(); ++a) {
        for (size_t m = 0; m < arms_[a].models.size(); ++m) AddJobs(a, m, length, jobs);
      }
    }
    RunJobs("needle", options_, jobs);
    return Gather();
  }

 private:
  void CheckVocabulary(const v1::Model& model) const {
    for (const TokenRange& range : {task_.noise, task_.keys, task_.values}) {
      if (range.last >= model.vocab_size()) {
        throw std::runtime_error(needle_.task_file + ": token " + std::to_string(range.last) +
                                 "; the vocabulary of " + model.name() + " has " +
                                 std::to_string(model.vocab_size()));
      }
    }
  }

  void AddJobs(size_t a, size_t m, int length, std::vector<Job>& jobs) {
    std::vector<PromptOutcome>& outcomes = outcomes_[a][m][length];
    outcomes.resize(static_cast<size_t>(needle_.prompts));
    for (int i = 0; i < needle_.prompts; ++i) {
      PromptOutcome* outcome = &outcomes[static_cast<size_t>(i)];
      jobs.push_back({length, [this, a, m, length, i, outcome] {
                        const RecallPrompt prompt =
                            MakeRecallPrompt(task_, length, options_.seed, i);
                        *outcome = Ask(daemon_, arms_[a].models[m].name(), prompt);
                      }});
    }
  }

  Results Gather() const {
    Results results;
    results.kind = "needle";
    results.title = "Recall of a needle in a haystack";
    results.bars = "95 % by Wilson; of several models the lowest and the highest";
    results.options = {{"task", needle_.task_file}, {"trained_length", task_.trained_length},
                       {"pairs", task_.pairs},      {"prompts", needle_.prompts},
                       {"seed", options_.seed},     {"lengths", lengths_}};
    results.models = ArmsJson(arms_);
    Curve accuracy;
    accuracy.id = "accuracy";
    accuracy.title = "Accuracy";
    accuracy.about = "values recalled, of those asked for";
    accuracy.x_label = "prompt tokens n";
    for (size_t a = 0; a < arms_.size(); ++a) {
      std::vector<Points> of_models;
      for (const auto& of_lengths : outcomes_[a]) {
        Points& points = of_models.emplace_back();
        for (const auto& [length, outcomes] : of_lengths) {
          int64_t correct = 0;
          for (const PromptOutcome& outcome : outcomes) correct += outcome.correct;
          points[length] = Share(correct, static_cast<int64_t>(outcomes.size()) * task_.pairs);
        }
      }
      accuracy.series.push_back(MakeSeries(arms_[a].label, of_models));
    }
    results.curves.push_back(std::move(accuracy));
    return results;
  }

  const CommonOptions& common_;
  const EvalOptions& options_;
  const NeedleOptions& needle_;
  const EvalDaemon daemon_;
  const RecallTask task_;
  const std::vector<Arm> arms_;
  std::vector<int> lengths_;
  // [arm][model][length][prompt]
  std::vector<std::vector<std::map<int, std::vector<PromptOutcome>>>> outcomes_;
};

}  // namespace

int EvalNeedle(const CommonOptions& common, const EvalOptions& options,
               const NeedleOptions& needle) {
  return Deliver(RecallEvaluation(common, options, needle).Run(), common, options);
}

}  // namespace acuity::client
