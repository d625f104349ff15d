#include "clients/cpp/heat_map.h"

#include <gmock/gmock.h>

namespace acuity::client {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::AttentionReport TwoBands() {
  v1::AttentionReport report;
  for (int band = 0; band < 2; ++band) {
    v1::LayerAttention* layer = report.add_layers();
    layer->set_layer(band * 4);
    layer->set_last_layer(band * 4 + 3);
    layer->set_policy("softmax");
    for (int b = 0; b <= 10 + band; b += 10) {
      v1::AttentionBucket* bucket = layer->add_buckets();
      bucket->set_n_min(int64_t{1} << b);
      bucket->set_normalized_entropy(0.25 + 0.5 * band);
      bucket->set_max_probability(0.5);
      bucket->set_effective_context(12.5);
    }
  }
  return report;
}

TEST(HeatMapTest, AnEmptyReportDrawsNothing) { EXPECT_EQ(DrawHeatMap({}, "title", false), ""); }

TEST(HeatMapTest, ShowsNumbersAndMeansOverLayers) {
  const std::string map = DrawHeatMap(TwoBands(), "Prompt", false);
  EXPECT_THAT(map, HasSubstr("Prompt"));
  EXPECT_THAT(map, HasSubstr("policy softmax"));
  EXPECT_THAT(map, HasSubstr("layers  0-3"));
  EXPECT_THAT(map, HasSubstr("   1k"));
  EXPECT_THAT(map, HasSubstr(" 0.25 "));
  EXPECT_THAT(map, HasSubstr(" 0.75 "));
  EXPECT_THAT(map, HasSubstr(" 0.500 "));  // the mean of both bands
  EXPECT_THAT(map, HasSubstr("12.5"));
  EXPECT_THAT(map, Not(HasSubstr("\033")));
}

TEST(HeatMapTest, ColoursOnATerminal) {
  EXPECT_THAT(DrawHeatMap(TwoBands(), "Prompt", true), HasSubstr("\033[97;48;5;"));
}

TEST(HeatMapTest, ValuesOutsideTheUnitIntervalDoNotLeaveThePalette) {
  v1::AttentionReport report = TwoBands();
  report.mutable_layers(0)->mutable_buckets(0)->set_normalized_entropy(1.0000001);
  report.mutable_layers(1)->mutable_buckets(0)->set_normalized_entropy(-1);
  EXPECT_NE(DrawHeatMap(report, "x", true), "");
}

}  // namespace
}  // namespace acuity::client
