#include "clients/cpp/eval_results.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "clients/cpp/eval_text.h"
#include "clients/cpp/progress.h"

namespace acuity::client {
namespace {

using testing::HasSubstr;
using testing::Not;

Results Small() {
  Results results;
  results.kind = "needle";
  results.title = "</script><script>alert(1)</script>";
  results.bars = "95 %";
  results.options = {{"trained_length", 128}};
  results.models = Json::array();
  Curve curve;
  curve.id = "accuracy";
  curve.title = "Accuracy";
  curve.about = "values recalled";
  curve.x_label = "n";
  curve.series.push_back(MakeSeries(
      "a", {{{128, {1, .9, 1, 60}}, {256, {.5, .4, .6, 60}}}, {{128, {.8, .7, .9, 60}}}}));
  curve.series.push_back(MakeSeries("longer name", {{{256, {.25, .2, .3, 60}}}}));
  results.curves.push_back(curve);
  results.maps.push_back({"m",
                          "map",
                          "about",
                          "layer",
                          "keys",
                          "none",
                          "all",
                          {"0"},
                          {"2", "4"},
                          {{std::nullopt, .5}}});
  return results;
}

TEST(EvalResultsTest, SeriesAreMeansOfTheirModels) {
  const Points points = Small().curves[0].series[0].points;
  EXPECT_NEAR(points.at(128).value, .9, 1e-12);
  EXPECT_EQ(points.at(128).low, .8);
  EXPECT_EQ(points.at(128).count, 120);
  EXPECT_EQ(points.at(256).low, .4);  // one model only: its own bar
}

TEST(EvalResultsTest, TablesAlign) {
  EXPECT_EQ(Tables(Small()),
            "Accuracy: values recalled\n"
            "    n                    a          longer name\n"
            "  128  0.900 [0.800 1.000]                    -\n"
            "  256  0.500 [0.400 0.600]  0.250 [0.200 0.300]\n"
            "\n[low high]: 95 %\n");
}

TEST(EvalResultsTest, JsonHasEveryPoint) {
  const Json json = ToJson(Small());
  EXPECT_EQ(json["curves"][0]["y_scale"], "share");
  EXPECT_EQ(json["curves"][0]["series"][1]["points"][0],
            (Json{{"x", 256}, {"value", .25}, {"low", .2}, {"high", .3}, {"count", 60}}));
  EXPECT_EQ(json["maps"][0]["cells"][0], (Json{nullptr, .5}));
}

TEST(EvalResultsTest, ThePageHoldsTheResultsAndNothingLeavesTheirElement) {
  const std::string page = ResultsPage(ToJson(Small()));
  const std::string open = R"(<script type="application/json" id="results">)";
  const size_t begin = page.find(open) + open.size();
  const std::string held = page.substr(begin, page.find("</script>", begin) - begin);
  EXPECT_EQ(Json::parse(held), ToJson(Small()));
  EXPECT_THAT(held, Not(HasSubstr("<")));
  for (const char* mark : {"/* page.css */", "/* figure.js */", "/* eval_page.js */"}) {
    EXPECT_THAT(page, Not(HasSubstr(mark)));
  }
  EXPECT_THAT(page, HasSubstr("class Figure"));
  EXPECT_THAT(page, HasSubstr("--series-0"));
  EXPECT_THAT(page, Not(HasSubstr("http://localhost")));
}

TEST(EvalResultsTest, WritesBothFilesOrSaysWhy) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "eval_results" / "deep";
  WriteResults(ToJson(Small()), folder);
  std::ifstream file(folder / "results.json");
  EXPECT_EQ(Json::parse(file), ToJson(Small()));
  EXPECT_TRUE(std::filesystem::exists(folder / "report.html"));
  EXPECT_THAT([&] { WriteResults({}, (folder / "results.json").string()); },
              testing::ThrowsMessage<std::runtime_error>(HasSubstr("results.json")));
}

TEST(EvalTextTest, WindowsBeginWithThePrefix) {
  using Windows = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(CutWindows({1, 2, 3, 4, 5, 6, 7}, {}, 3, 9), (Windows{{1, 2, 3}, {4, 5, 6}}));
  EXPECT_EQ(CutWindows({1, 2, 3, 4, 5, 6, 7}, {}, 3, 1), (Windows{{1, 2, 3}}));
  EXPECT_EQ(CutWindows({1, 2}, {}, 3, 9), (Windows{{1, 2}}));
  EXPECT_EQ(CutWindows({9, 1, 2, 3, 4}, {9}, 3, 9), (Windows{{9, 1, 2}, {9, 3, 4}}));
  EXPECT_EQ(CutWindows({1, 2, 3, 4}, {9}, 3, 9), (Windows{{9, 1, 2}, {9, 3, 4}}));
  EXPECT_EQ(CutWindows({}, {9}, 3, 9), Windows{});
}

TEST(ProgressTest, NamesDurations) {
  EXPECT_EQ(DurationName(0.4), "0 s");
  EXPECT_EQ(DurationName(59.4), "59 s");
  EXPECT_EQ(DurationName(61), "1:01");
  EXPECT_EQ(DurationName(3723), "1:02:03");
  EXPECT_EQ(DurationName(-1), "0 s");
}

}  // namespace
}  // namespace acuity::client
