#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include "clients/cpp/eval_run.h"
#include "clients/cpp/eval_text.h"

namespace acuity::client {
namespace {

constexpr int kMaxWindow = 16384;  // of what is chosen, not of what may be asked for

// One model's loss, in nats, of every token but the first: losses[i] is that of token i + 1.
struct WindowLoss {
  std::vector<int32_t> tokens;
  std::vector<double> losses;
};
using ModelLosses = std::vector<WindowLoss>;  // by window

WindowLoss ScoreWindow(const EvalDaemon& daemon, const std::string& model,
                       const std::vector<int32_t>& window) {
  v1::ScoreRequest request;
  request.set_model(model);
  request.set_attention(v1::ATTENTION_DETAIL_OFF);
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(window.begin(),
                                                                       window.end());
  const v1::ScoreResponse response = daemon.Score(request);
  WindowLoss out{window, {}};
  for (int i = 1; i < response.logprobs_size(); ++i) out.losses.push_back(-response.logprobs(i));
  return out;
}

class PplEvaluation {
 public:
  PplEvaluation(const CommonOptions& common, const EvalOptions& options, const PplOptions& ppl)
      : common_(common),
        options_(options),
        ppl_(ppl),
        daemon_(common),
        arms_(daemon_.Arms(options.models)) {
    const int context = SmallestContext(arms_);
    if (ppl.window > context) {
      throw std::runtime_error("--window: " + std::to_string(ppl.window) +
                               ", the smallest context of the models is " +
                               std::to_string(context));
    }
    window_ = ppl.window > 0 ? ppl.window : std::min({context, kMaxWindow, ppl.max_tokens});
  }

  Results Run() {
    std::vector<Job> jobs;
    losses_.resize(arms_.size());
    for (size_t a = 0; a < arms_.size(); ++a) {
      losses_[a].resize(arms_[a].models.size());
      for (size_t m = 0; m < arms_[a].models.size(); ++m) AddJobs(a, m, jobs);
    }
    RunJobs("ppl", options_, jobs);
    return Gather();
  }

 private:
  void AddJobs(size_t a, size_t m, std::vector<Job>& jobs) {
    const std::string& model = arms_[a].models[m].name();
    std::vector<std::vector<int32_t>> windows = WindowsOfFiles(
        daemon_, model, ppl_.text_files, window_, std::max(1, ppl_.max_tokens / window_));
    losses_[a][m].resize(windows.size());
    for (size_t i = 0; i < windows.size(); ++i) {
      WindowLoss* out = &losses_[a][m][i];
      const auto cost = static_cast<int64_t>(windows[i].size());
      jobs.push_back({cost, [this, &model, window = std::move(windows[i]), out] {
                        *out = ScoreWindow(daemon_, model, window);
                      }});
    }
  }

  int64_t BucketOf(int64_t position) const {
    if (ppl_.bucket > 0) return position / ppl_.bucket * ppl_.bucket;
    return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(position)));
  }

  // minus: the losses to subtract, token by token, or none.
  Points ByPosition(const ModelLosses& losses, const ModelLosses* minus) const {
    std::map<int64_t, Mean> means;
    for (size_t w = 0; w < losses.size(); ++w) {
      for (size_t i = 0; i < losses[w].losses.size(); ++i) {
        const double other = minus == nullptr ? 0 : (*minus)[w].losses[i];
        means[BucketOf(static_cast<int64_t>(i) + 1)].Add(losses[w].losses[i] - other);
      }
    }
    Points points;
    for (const auto& [bucket, mean] : means) points[bucket] = mean.estimate();
    return points;
  }

  // Only the same tokens can be compared one by one.
  bool Comparable() const {
    for (const auto& arm : losses_) {
      for (const ModelLosses& model : arm) {
        if (model.size() != losses_[0][0].size()) return false;
        for (size_t w = 0; w < model.size(); ++w) {
          if (model[w].tokens != losses_[0][0][w].tokens) return false;
        }
      }
    }
    return true;
  }

  ModelLosses MeanOfFirstArm() const {
    ModelLosses mean = losses_[0][0];
    for (size_t w = 0; w < mean.size(); ++w) {
      for (size_t i = 0; i < mean[w].losses.size(); ++i) {
        double sum = 0;
        for (const ModelLosses& model : losses_[0]) sum += model[w].losses[i];
        mean[w].losses[i] = sum / static_cast<double>(losses_[0].size());
      }
    }
    return mean;
  }

  Curve MakeCurve(const char* id, const char* title, std::string about, size_t first_arm,
                  const ModelLosses* minus) const {
    Curve curve;
    curve.id = id;
    curve.title = title;
    curve.about = std::move(about);
    curve.x_label = "position, from";
    curve.x_scale = ppl_.bucket > 0 ? Scale::kLinear : Scale::kLog;
    curve.y_scale = Scale::kLinear;
    for (size_t a = first_arm; a < arms_.size(); ++a) {
      std::vector<Points> of_models;
      for (const ModelLosses& losses : losses_[a]) of_models.push_back(ByPosition(losses, minus));
      curve.series.push_back(MakeSeries(arms_[a].label, of_models));
    }
    return curve;
  }

  std::string Total(size_t a) const {
    Mean mean;
    for (const ModelLosses& model : losses_[a]) {
      for (const WindowLoss& window : model) {
        for (double loss : window.losses) mean.Add(loss);
      }
    }
    char text[160];
    std::snprintf(text, sizeof text,
                  ": %.4f nats/token (standard error %.4f) over %lld tokens, perplexity %.3f",
                  mean.value(), mean.standard_error(), static_cast<long long>(mean.count()),
                  std::exp(mean.value()));
    return arms_[a].label + text;
  }

  Results Gather() const {
    Results results;
    results.kind = "ppl";
    results.title = "Loss by position";
    results.bars = "1.96 standard errors over tokens; of several models the lowest and the highest";
    results.options = {{"texts", ppl_.text_files},
                       {"window", window_},
                       {"max_tokens", ppl_.max_tokens},
                       {"bucket", ppl_.bucket}};
    results.models = ArmsJson(arms_);
    results.curves.push_back(MakeCurve("loss", "Loss", "nats/token, lower is better", 0, nullptr));
    if (arms_.size() > 1 && Comparable()) {
      const ModelLosses base = MeanOfFirstArm();
      results.curves.push_back(MakeCurve(
          "loss_difference", "Difference of loss",
          "to " + arms_[0].label + ", nats/token, token by token: below 0 is better", 1, &base));
    }
    for (size_t a = 0; a < arms_.size(); ++a) results.summary.push_back(Total(a));
    return results;
  }

  const CommonOptions& common_;
  const EvalOptions& options_;
  const PplOptions& ppl_;
  const EvalDaemon daemon_;
  const std::vector<Arm> arms_;
  int window_ = 0;
  std::vector<std::vector<ModelLosses>> losses_;  // [arm][model]
};

}  // namespace

int EvalPpl(const CommonOptions& common, const EvalOptions& options, const PplOptions& ppl) {
  return Deliver(PplEvaluation(common, options, ppl).Run(), common, options);
}

}  // namespace acuity::client
