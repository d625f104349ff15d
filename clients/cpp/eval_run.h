// What the evaluations share: the models that they compare, calls to the daemon, and work that is
// spread over several calls at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "acuity/v1/acuity.pb.h"
#include "clients/cpp/eval.h"
#include "clients/cpp/eval_results.h"

namespace acuity::client {

struct Connection;

// One line of a plot: a model, or several of the same kind (from several seeds), whose mean it is.
struct Arm {
  std::string label;
  std::vector<v1::Model> models;  // at least one
};

// A finished Generate call of one sample.
struct Generated {
  std::string text;
  std::vector<int32_t> token_ids;
  v1::GenerateResult result;
};

// Calls of one daemon. Each throws std::runtime_error "CODE: message" if the daemon refuses it.
// Thread-safe.
class EvalDaemon {
 public:
  explicit EvalDaemon(const CommonOptions& common);
  ~EvalDaemon();

  // `specs` are "NAME" or "LABEL=NAME,NAME,..."; none: the daemon's first model.
  std::vector<Arm> Arms(const std::vector<std::string>& specs) const;
  v1::TokenizeResponse Tokenize(const std::string& model, const v1::Prompt& prompt) const;
  v1::ScoreResponse Score(const v1::ScoreRequest& request) const;
  Generated Generate(const v1::GenerateRequest& request) const;
  // Unlike any other evaluation's: with it, no prompt is found in the prefix cache.
  const std::string& cache_salt() const { return cache_salt_; }

 private:
  v1::Model GetModel(const std::string& name) const;

  const CommonOptions common_;
  const std::unique_ptr<const Connection> connection_;
  const std::string cache_salt_;
};

// [{"label", "models"}] for Results::models.
Json ArmsJson(const std::vector<Arm>& arms);

// Greedy, nothing reported, `max_tokens` whatever they are, with the daemon's salt.
v1::GenerateRequest GreedyRequest(const EvalDaemon& daemon, const std::string& model,
                                  int max_tokens);

// At most so many bytes of a file are read; longer ones are cut at a character's end.
inline constexpr size_t kMaxTextBytes = 3u << 20;
std::string ReadText(const std::string& path);

// Lengths in [shortest, longest], ascending and once each, and a line on stderr about those that
// are not; throws std::runtime_error if none is left. `why` names the bound.
std::vector<int> FittingLengths(std::vector<int> lengths, int shortest, int longest,
                                const std::string& why);
// The smallest of the arms' contexts.
int SmallestContext(const std::vector<Arm>& arms);

struct Job {
  int64_t tokens;  // what it costs
  std::function<void()> run;
};
// Runs the jobs, `options.concurrency` at a time, in order, showing how far it is. The first
// exception ends it, and is thrown.
void RunJobs(const std::string& what, const EvalOptions& options, const std::vector<Job>& jobs);

// Prints the results (as JSON, or tables) and writes them where --out says. Returns 0.
int Deliver(const Results& results, const CommonOptions& common, const EvalOptions& options);

}  // namespace acuity::client
