#include <algorithm>
#include <stdexcept>
#include <utility>

#include "clients/cpp/eval_run.h"
#include "clients/cpp/eval_text.h"

namespace acuity::client {
namespace {

constexpr int kMaxPrompt = 8192;  // of what is chosen, not of what may be asked for

struct Statistic {
  const char *id, *title, *about;
  Scale scale;
  int digits;
  double (*get)(const v1::AttentionBucket&);
};
constexpr Statistic kStatistics[] = {
    {"normalized_entropy", "Normalised entropy", "H / ln n, mean of all layers: 1 is flat",
     Scale::kShare, 3, [](const v1::AttentionBucket& b) { return b.normalized_entropy(); }},
    {"effective_context", "Effective context", "e^H, keys attended to, mean of all layers",
     Scale::kLog, 1, [](const v1::AttentionBucket& b) { return b.effective_context(); }},
    {"max_probability", "Maximum probability", "of the most attended key, mean of all layers",
     Scale::kShare, 3, [](const v1::AttentionBucket& b) { return b.max_probability(); }}};

class FlatnessEvaluation {
 public:
  FlatnessEvaluation(const CommonOptions& common, const EvalOptions& options,
                     const FlatnessOptions& flatness)
      : common_(common),
        options_(options),
        flatness_(flatness),
        daemon_(common),
        arms_(daemon_.Arms(options.models)) {
    const int room = SmallestContext(arms_) - 1;  // one token is generated
    if (flatness.tokens > room) {
      throw std::runtime_error("--tokens: " + std::to_string(flatness.tokens) +
                               ", the smallest context of the models leaves " +
                               std::to_string(room));
    }
    tokens_ = flatness.tokens > 0 ? flatness.tokens : std::min(room, kMaxPrompt);
  }

  Results Run() {
    std::vector<Job> jobs;
    reports_.resize(arms_.size());
    for (size_t a = 0; a < arms_.size(); ++a) {
      reports_[a].resize(arms_[a].models.size());
      for (size_t m = 0; m < arms_[a].models.size(); ++m) AddJobs(a, m, jobs);
    }
    RunJobs("flatness", options_, jobs);
    return Gather();
  }

 private:
  void AddJobs(size_t a, size_t m, std::vector<Job>& jobs) {
    const std::string& model = arms_[a].models[m].name();
    std::vector<std::vector<int32_t>> prompts =
        WindowsOfFiles(daemon_, model, flatness_.text_files, tokens_, flatness_.prompts);
    reports_[a][m].resize(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      v1::AttentionReport* report = &reports_[a][m][i];
      const auto cost = static_cast<int64_t>(prompts[i].size());
      jobs.push_back({cost, [this, &model, prompt = std::move(prompts[i]), report] {
                        v1::GenerateRequest request = GreedyRequest(daemon_, model, 1);
                        request.set_attention(v1::ATTENTION_DETAIL_LAYERS);
                        request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(
                            prompt.begin(), prompt.end());
                        *report = daemon_.Generate(request).result.prompt_attention();
                      }});
    }
  }

  // Rows that see one key have no choice: they are left out.
  static bool Counts(const v1::AttentionBucket& bucket) { return bucket.n_max() > 1; }

  static Points ByContext(const std::vector<v1::AttentionReport>& reports,
                          const Statistic& statistic) {
    std::map<int64_t, Mean> over_prompts;
    for (const v1::AttentionReport& report : reports) {
      std::map<int64_t, Mean> over_layers;
      for (const v1::LayerAttention& layer : report.layers()) {
        for (const v1::AttentionBucket& bucket : layer.buckets()) {
          if (Counts(bucket)) over_layers[bucket.n_min()].Add(statistic.get(bucket));
        }
      }
      for (const auto& [n, mean] : over_layers) over_prompts[n].Add(mean.value());
    }
    Points points;
    for (const auto& [n, mean] : over_prompts) points[n] = mean.estimate();
    return points;
  }

  // Layer by context, mean over the arm's models and prompts.
  Map MakeMap(size_t a) const {
    Map map;
    map.id = "normalized_entropy:" + arms_[a].label;
    map.title = arms_[a].label + " · " + arms_[a].models[0].attention_policy();
    map.about = "normalised entropy H / ln n";
    map.row_label = "layer";
    map.column_label = "keys n visible to the row, from";
    map.low = "0, one key";
    map.high = "1, flat";
    std::map<int64_t, std::map<int, Mean>> cells;  // [context][layer]
    for (const auto& reports : reports_[a]) {
      for (const v1::AttentionReport& report : reports) {
        for (const v1::LayerAttention& layer : report.layers()) {
          for (const v1::AttentionBucket& bucket : layer.buckets()) {
            if (Counts(bucket)) {
              cells[bucket.n_min()][layer.layer()].Add(bucket.normalized_entropy());
            }
          }
        }
      }
    }
    for (int layer = 0; layer < arms_[a].models[0].num_layers(); ++layer) {
      map.rows.push_back(std::to_string(layer));
      std::vector<std::optional<double>>& row = map.cells.emplace_back();
      for (const auto& [n, layers] : cells) {
        const auto cell = layers.find(layer);
        row.push_back(cell == layers.end() ? std::nullopt
                                           : std::optional<double>(cell->second.value()));
      }
    }
    for (const auto& [n, layers] : cells) map.columns.push_back(std::to_string(n));
    return map;
  }

  Results Gather() const {
    Results results;
    results.kind = "flatness";
    results.title = "Flatness of attention";
    results.bars =
        "1.96 standard errors over prompts; of several models the lowest and the highest";
    results.options = {
        {"texts", flatness_.text_files}, {"tokens", tokens_}, {"prompts", flatness_.prompts}};
    results.models = ArmsJson(arms_);
    for (const Statistic& statistic : kStatistics) {
      Curve curve;
      curve.id = statistic.id;
      curve.title = statistic.title;
      curve.about = statistic.about;
      curve.x_label = "keys n, from";
      curve.y_scale = statistic.scale;
      curve.digits = statistic.digits;
      for (size_t a = 0; a < arms_.size(); ++a) {
        std::vector<Points> of_models;
        for (const auto& reports : reports_[a]) of_models.push_back(ByContext(reports, statistic));
        curve.series.push_back(MakeSeries(arms_[a].label, of_models));
      }
      results.curves.push_back(std::move(curve));
    }
    for (size_t a = 0; a < arms_.size(); ++a) results.maps.push_back(MakeMap(a));
    return results;
  }

  const CommonOptions& common_;
  const EvalOptions& options_;
  const FlatnessOptions& flatness_;
  const EvalDaemon daemon_;
  const std::vector<Arm> arms_;
  int tokens_ = 0;
  std::vector<std::vector<std::vector<v1::AttentionReport>>> reports_;  // [arm][model][prompt]
};

}  // namespace

int EvalFlatness(const CommonOptions& common, const EvalOptions& options,
                 const FlatnessOptions& flatness) {
  return Deliver(FlatnessEvaluation(common, options, flatness).Run(), common, options);
}

}  // namespace acuity::client
