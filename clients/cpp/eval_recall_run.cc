#include <stdexcept>
#include <utility>

#include "clients/cpp/eval_outcome.h"
#include "clients/cpp/eval_recall.h"
#include "clients/cpp/eval_run.h"

namespace acuity::client {
namespace {

constexpr int kDefaultDoublings = 5;  // lengths 1 to 32 times the trained one

// Asks for each query's value in turn; each prompt is the one before with a value and a key more,
// so all but its end is found in the prefix cache.
NeedleOutcome Ask(const EvalDaemon& daemon, const std::string& model, const RecallPrompt& prompt) {
  NeedleOutcome outcome;
  v1::GenerateRequest request = GreedyRequest(daemon, model, 1);
  request.mutable_sampling()->set_ignore_eos(true);
  auto* ids = request.mutable_prompt()->mutable_token_ids()->mutable_ids();
  v1::TokenSpan* pair = request.add_watch();
  for (const RecallPrompt::Query& query : prompt.queries) {
    ids->Assign(prompt.tokens.begin(), prompt.tokens.begin() + query.key + 1);
    pair->set_begin(query.pair);
    pair->set_end(query.pair + 2);
    const Generated answer = daemon.Generate(request);
    outcome.AddSpans(answer.result.prompt_spans());
    ++outcome.asked;
    outcome.found += !answer.token_ids.empty() && answer.token_ids[0] == query.value;
  }
  return outcome;
}

void CheckVocabulary(const RecallTask& task, const std::string& file, const v1::Model& model) {
  for (const TokenRange& range : {task.noise, task.keys, task.values}) {
    if (range.last >= model.vocab_size()) {
      throw std::runtime_error(file + ": token " + std::to_string(range.last) +
                               "; the vocabulary of " + model.name() + " has " +
                               std::to_string(model.vocab_size()));
    }
  }
}

std::vector<int> Lengths(const NeedleOptions& needle, const RecallTask& task, int longest) {
  std::vector<int> lengths = needle.lengths;
  if (lengths.empty()) {
    for (int i = 0; i <= kDefaultDoublings && task.trained_length << i <= longest; ++i) {
      lengths.push_back(task.trained_length << i);
    }
    if (lengths.empty()) lengths = {longest};
  }
  return FittingLengths(std::move(lengths), task.min_length(), longest,
                        "what the pairs need and the smallest context of the models");
}

}  // namespace

int EvalRecall(const CommonOptions& common, const EvalOptions& options,
               const NeedleOptions& needle) {
  const RecallTask task = ParseRecallTask(ReadText(needle.task_file), needle.task_file);
  const EvalDaemon daemon(common);
  const std::vector<Arm> arms = daemon.Arms(options.models);
  for (const Arm& arm : arms) {
    for (const v1::Model& model : arm.models) CheckVocabulary(task, needle.task_file, model);
  }
  const std::vector<int> lengths = Lengths(needle, task, SmallestContext(arms));

  std::vector<Job> jobs;
  std::vector<NeedleOutcomes> outcomes(arms.size());
  for (size_t a = 0; a < arms.size(); ++a) outcomes[a].resize(arms[a].models.size());
  for (int length : lengths) {
    for (size_t a = 0; a < arms.size(); ++a) {
      for (size_t m = 0; m < arms[a].models.size(); ++m) {
        std::vector<NeedleOutcome>& prompts = outcomes[a][m][length];
        prompts.resize(static_cast<size_t>(needle.prompts));
        for (int i = 0; i < needle.prompts; ++i) {
          jobs.push_back({length, [&, length, i, to = &prompts[static_cast<size_t>(i)],
                                   model = &arms[a].models[m].name()] {
                            *to = Ask(daemon, *model,
                                      MakeRecallPrompt(task, length, options.seed, i));
                          }});
        }
      }
    }
  }
  RunJobs("needle", options, jobs);

  Results results;
  results.kind = "needle";
  results.title = "Recall of a needle in a haystack";
  results.bars = kNeedleBars;
  results.options = {{"task", needle.task_file}, {"trained_length", task.trained_length},
                     {"pairs", task.pairs},      {"prompts", needle.prompts},
                     {"seed", options.seed},     {"lengths", lengths}};
  results.models = ArmsJson(arms);
  AddNeedleCurves(arms, outcomes, &results);
  return Deliver(results, common, options);
}

}  // namespace acuity::client
