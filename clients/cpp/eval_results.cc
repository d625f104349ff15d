#include "clients/cpp/eval_results.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "clients/cpp/eval_page.h"

namespace acuity::client {
namespace {

const char* Name(Scale scale) {
  switch (scale) {
    case Scale::kLinear:
      return "linear";
    case Scale::kLog:
      return "log";
    case Scale::kShare:
      break;
  }
  return "share";
}

Json ToJson(const Curve& curve) {
  Json series = Json::array();
  for (const Series& s : curve.series) {
    Json points = Json::array();
    for (const auto& [x, y] : s.points) {
      points.push_back(
          {{"x", x}, {"value", y.value}, {"low", y.low}, {"high", y.high}, {"count", y.count}});
    }
    series.push_back({{"label", s.label}, {"points", std::move(points)}});
  }
  return {{"id", curve.id},
          {"title", curve.title},
          {"about", curve.about},
          {"x_label", curve.x_label},
          {"x_scale", Name(curve.x_scale)},
          {"y_scale", Name(curve.y_scale)},
          {"digits", curve.digits},
          {"series", std::move(series)}};
}

Json ToJson(const Map& map) {
  Json cells = Json::array();
  for (const auto& row : map.cells) {
    Json& out = cells.emplace_back(Json::array());
    for (const std::optional<double>& cell : row) out.push_back(cell ? Json(*cell) : Json());
  }
  return {{"id", map.id},
          {"title", map.title},
          {"about", map.about},
          {"row_label", map.row_label},
          {"column_label", map.column_label},
          {"low", map.low},
          {"high", map.high},
          {"rows", map.rows},
          {"columns", map.columns},
          {"cells", std::move(cells)}};
}

// Columns as wide as their widest cell, two spaces between them, numbers to the right.
std::string Align(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out.append(widths[i] - row[i].size() + 2, ' ');
      out += row[i];
    }
    out += "\n";
  }
  return out;
}

std::string Cell(const Estimate& e, int digits) {
  char text[128];
  std::snprintf(text, sizeof text, "%.*f [%.*f %.*f]", digits, e.value, digits, e.low, digits,
                e.high);
  return text;
}

std::string Table(const Curve& curve) {
  std::set<int64_t> all;
  std::vector<std::vector<std::string>> rows = {{curve.x_label}};
  for (const Series& s : curve.series) {
    rows[0].push_back(s.label);
    for (const auto& [x, y] : s.points) all.insert(x);
  }
  for (int64_t x : all) {
    rows.push_back({std::to_string(x)});
    for (const Series& s : curve.series) {
      const auto point = s.points.find(x);
      rows.back().push_back(point == s.points.end() ? "-" : Cell(point->second, curve.digits));
    }
  }
  std::string out = curve.title;
  out += ": ";
  out += curve.about;
  out += '\n';
  return out += Align(rows);
}

// Puts `value` in the place of the first `mark`. REQUIRES that the page has it.
void Replace(std::string& page, std::string_view mark, std::string_view value) {
  page.replace(page.find(mark), mark.size(), value);
}

void WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

}  // namespace

Series MakeSeries(std::string label, const std::vector<Points>& of_models) {
  std::map<int64_t, std::vector<Estimate>> gathered;
  for (const Points& points : of_models) {
    for (const auto& [x, estimate] : points) gathered[x].push_back(estimate);
  }
  Series series{std::move(label), {}};
  for (const auto& [x, estimates] : gathered) series.points[x] = Spread(estimates);
  return series;
}

Json ToJson(const Results& results) {
  Json curves = Json::array(), maps = Json::array();
  for (const Curve& curve : results.curves) curves.push_back(ToJson(curve));
  for (const Map& map : results.maps) maps.push_back(ToJson(map));
  return {{"kind", results.kind},        {"title", results.title},     {"bars", results.bars},
          {"summary", results.summary},  {"options", results.options}, {"models", results.models},
          {"curves", std::move(curves)}, {"maps", std::move(maps)}};
}

std::string Tables(const Results& results) {
  std::string out;
  for (const Curve& curve : results.curves) {
    out += Table(curve);
    out += '\n';
  }
  out += "[low high]: ";
  out += results.bars;
  out += '\n';
  for (const std::string& line : results.summary) {
    out += line;
    out += '\n';
  }
  return out;
}

std::string ResultsPage(const Json& results) {
  // "<" cannot end the element that holds the JSON, nor begin a comment in it.
  std::string json;
  for (const char c : results.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    if (c == '<') {
      json += "\\u003c";
    } else {
      json += c;
    }
  }
  std::map<std::string_view, std::string_view> files;
  for (const WebFile& file : WebFiles()) files[file.path] = file.body;
  std::string page(files["/eval_page.html"]);
  // The results last: nothing in them may be taken for a mark.
  Replace(page, "/* page.css */", files["/page.css"]);
  Replace(page, "/* figure.js */", files["/figure.js"]);
  Replace(page, "/* eval_page.js */", files["/eval_page.js"]);
  Replace(page, "\"results.json\"", json);
  return page;
}

void WriteResults(const Json& results, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw std::runtime_error("cannot make " + folder + ": " + error.message());
  const std::string json = results.dump(1, ' ', false, Json::error_handler_t::replace);
  WriteFile(std::filesystem::path(folder) / "results.json", json);
  WriteFile(std::filesystem::path(folder) / "report.html", ResultsPage(results));
}

}  // namespace acuity::client
