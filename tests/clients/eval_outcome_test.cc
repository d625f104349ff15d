#include "clients/cpp/eval_outcome.h"

#include <gmock/gmock.h>

#include "clients/cpp/spans.h"

namespace acuity::client {
namespace {

using testing::HasSubstr;

// Two layers of two heads; head h of layer l has `needle`[2 l + h], and a largest probability of
// half that.
v1::SpanReport Report(const std::vector<double>& needle) {
  v1::SpanReport report;
  report.set_rows(1);
  for (int l = 0; l < 2; ++l) {
    v1::LayerSpans* layer = report.add_layers();
    layer->set_layer(l);
    for (int h = 0; h < 2; ++h) {
      v1::HeadSpans* head = layer->add_heads();
      head->set_head(h);
      head->add_mass(needle[2 * l + h]);
      head->set_max_probability(needle[2 * l + h] / 2);
      head->set_normalized_entropy(.25);
      head->set_effective_context(4);
    }
  }
  return report;
}

NeedleOutcome Prompt(int found, const std::vector<double>& first,
                     const std::vector<double>& second) {
  NeedleOutcome outcome{2, found, {}};
  outcome.AddSpans(Report(first));
  outcome.AddSpans(Report(second));
  return outcome;
}

TEST(NeedleOutcomeTest, CurvesAreOfTheHeadThatFindsTheNeedle) {
  v1::Model model;
  model.set_name("m");
  model.set_num_heads(2);
  // Head 1 of layer 1 has the most on average, .7, though head 0 of layer 0 has more once.
  const std::vector<NeedleOutcome> prompts = {Prompt(2, {.9, 0, .1, .6}, {0, 0, .1, .8}),
                                              Prompt(1, {.1, 0, .1, .5}, {0, 0, .1, .9})};
  Results results;
  AddNeedleCurves({{"arm", {model}}}, {{{{64, prompts}}}}, &results);
  std::map<std::string, Estimate> at;
  for (const Curve& curve : results.curves) {
    at[curve.id] = curve.series.at(0).points.at(64);
    EXPECT_EQ(curve.series[0].label, "arm");
  }
  EXPECT_EQ(at["accuracy"].value, .75);
  EXPECT_EQ(at["accuracy"].count, 4);
  EXPECT_NEAR(at["needle_attention"].value, .7, 1e-12);
  EXPECT_EQ(at["needle_attention"].count, 2);
  EXPECT_NEAR(at["max_probability"].value, .35, 1e-12);
  EXPECT_NEAR(at["normalized_entropy"].value, .25, 1e-12);
  EXPECT_NEAR(at["effective_context"].value, 4, 1e-12);
  EXPECT_NEAR(at["needle_attention_mean"].value, (.25 + 0 + .1 + .7) / 4, 1e-12);
  ASSERT_EQ(results.summary.size(), 1u);
  EXPECT_THAT(results.summary[0], HasSubstr("layer 1 head 1"));
  EXPECT_THAT(results.summary[0], HasSubstr("0.700"));
}

TEST(SpansTest, AreParsedWhole) {
  v1::TokenSpan span;
  EXPECT_TRUE(ParseSpan("3:17", &span));
  EXPECT_EQ(span.begin(), 3);
  EXPECT_EQ(span.end(), 17);
  for (const char* bad : {"", "3", "3:", ":3", "a:3", "3:4x", "3 :4", "3:99999999999"}) {
    EXPECT_FALSE(ParseSpan(bad, &span)) << bad;
  }
}

TEST(SpansTest, SayWhichHeadsLook) {
  v1::GenerateRequest request;
  ASSERT_TRUE(ParseSpan("3:17", request.add_watch()));
  EXPECT_EQ(DescribeSpans(request.watch(), {}, "x"), "");
  EXPECT_EQ(DescribeSpans(request.watch(), Report({.1, .2, .8, .1}), "The last row"),
            "The last row: 0.3000 of the attention is on tokens 3:17, mean of all heads; most of "
            "layer 1 head 0 0.8000, layer 0 head 1 0.2000, layer 0 head 0 0.1000\n");
}

}  // namespace
}  // namespace acuity::client
