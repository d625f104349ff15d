#include "clients/cpp/eval_outcome.h"

#include <cstdio>
#include <utility>

namespace acuity::client {
namespace {

struct HeadCurve {
  const char *id, *title, *about;
  Scale scale;
  int digits;
  double (*get)(const HeadAttention&);
  bool all_heads = false;  // their mean, else the head that attends to the needle most
};
constexpr HeadCurve kHeadCurves[] = {
    {"needle_attention", "Attention to the needle", "of the head that attends to it most",
     Scale::kShare, 3, [](const HeadAttention& h) { return h.needle.value(); }},
    {"max_probability", "Maximum probability", "of the key that this head attends to most",
     Scale::kShare, 3, [](const HeadAttention& h) { return h.max_probability.value(); }},
    {"normalized_entropy", "Normalised entropy", "H / ln n of this head: 1 is flat", Scale::kShare,
     3, [](const HeadAttention& h) { return h.normalized_entropy.value(); }},
    {"effective_context", "Effective context", "e^H of this head, keys attended to", Scale::kLog, 1,
     [](const HeadAttention& h) { return h.effective_context.value(); }},
    {"needle_attention_mean", "Attention to the needle, all heads", "mean of all layers and heads",
     Scale::kLinear, 4, [](const HeadAttention& h) { return h.needle.value(); }, true}};

using Prompts = std::vector<NeedleOutcome>;

double NeedleOf(const Prompts& prompts, size_t head) {
  Mean mean;
  for (const NeedleOutcome& prompt : prompts) mean.Add(prompt.heads[head].needle.value());
  return mean.value();
}

// On average over the prompts.
size_t StrongestHead(const Prompts& prompts) {
  size_t strongest = 0;
  for (size_t head = 1; head < prompts[0].heads.size(); ++head) {
    if (NeedleOf(prompts, head) > NeedleOf(prompts, strongest)) strongest = head;
  }
  return strongest;
}

Estimate Accuracy(const Prompts& prompts) {
  int64_t asked = 0, found = 0;
  for (const NeedleOutcome& prompt : prompts) {
    asked += prompt.asked;
    found += prompt.found;
  }
  return Share(found, asked);
}

Estimate OfHeads(const Prompts& prompts, const HeadCurve& curve) {
  const size_t strongest = curve.all_heads ? 0 : StrongestHead(prompts);
  Mean over_prompts;
  for (const NeedleOutcome& prompt : prompts) {
    Mean over_heads;
    if (curve.all_heads) {
      for (const HeadAttention& head : prompt.heads) over_heads.Add(curve.get(head));
    } else {
      over_heads.Add(curve.get(prompt.heads[strongest]));
    }
    over_prompts.Add(over_heads.value());
  }
  return over_prompts.estimate();
}

template <typename Get>
void AddSeries(const std::vector<Arm>& arms, const std::vector<NeedleOutcomes>& outcomes, Get get,
               Curve* curve) {
  curve->x_label = "prompt tokens n";
  for (size_t a = 0; a < arms.size(); ++a) {
    std::vector<Points> of_models;
    for (const auto& by_length : outcomes[a]) {
      Points& points = of_models.emplace_back();
      for (const auto& [length, prompts] : by_length) points[length] = get(prompts);
    }
    curve->series.push_back(MakeSeries(arms[a].label, of_models));
  }
}

std::string Line(const v1::Model& model, int length, const Prompts& prompts) {
  const size_t head = StrongestHead(prompts), heads = static_cast<size_t>(model.num_heads());
  char text[160];
  std::snprintf(text, sizeof text,
                ": in prompts of %d tokens, layer %zu head %zu attends to the needle most, with "
                "%.3f",
                length, head / heads, head % heads, NeedleOf(prompts, head));
  return model.name() + text;
}

}  // namespace

void NeedleOutcome::AddSpans(const v1::SpanReport& report) {
  size_t i = 0;
  for (const v1::LayerSpans& layer : report.layers()) {
    for (const v1::HeadSpans& head : layer.heads()) {
      if (heads.size() <= i) heads.emplace_back();
      HeadAttention& to = heads[i++];
      to.needle.Add(head.mass(0));
      to.normalized_entropy.Add(head.normalized_entropy());
      to.effective_context.Add(head.effective_context());
      to.max_probability.Add(head.max_probability());
    }
  }
}

void AddNeedleCurves(const std::vector<Arm>& arms, const std::vector<NeedleOutcomes>& outcomes,
                     Results* results) {
  Curve accuracy;
  accuracy.id = "accuracy";
  accuracy.title = "Accuracy";
  accuracy.about = "needles found, of those asked for";
  AddSeries(arms, outcomes, Accuracy, &accuracy);
  results->curves.push_back(std::move(accuracy));
  for (const HeadCurve& what : kHeadCurves) {
    Curve curve;
    curve.id = what.id;
    curve.title = what.title;
    curve.about = what.about;
    curve.y_scale = what.scale;
    curve.digits = what.digits;
    AddSeries(
        arms, outcomes, [&](const Prompts& prompts) { return OfHeads(prompts, what); }, &curve);
    results->curves.push_back(std::move(curve));
  }
  for (size_t a = 0; a < arms.size(); ++a) {
    for (size_t m = 0; m < arms[a].models.size(); ++m) {
      const auto& [length, prompts] = *outcomes[a][m].rbegin();
      results->summary.push_back(Line(arms[a].models[m], length, prompts));
    }
  }
}

}  // namespace acuity::client
