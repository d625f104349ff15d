// What an evaluation found, in the one form that the terminal, results.json and the page show:
// curves over the context length with error bars, and heat maps.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "clients/cpp/eval_statistics.h"
#include "clients/cpp/json.h"

namespace acuity::client {

// By x: the context length or a position.
using Points = std::map<int64_t, Estimate>;

struct Series {
  std::string label;  // of the model, or of the models that it is the mean of
  Points points;
};

// How an axis is divided: kShare is linear from 0 to 1, kLog by powers of two.
enum class Scale { kLinear, kLog, kShare };

struct Curve {
  std::string id;  // a key for programs
  std::string title, about;
  std::string x_label;
  Scale x_scale = Scale::kLog, y_scale = Scale::kShare;
  int digits = 3;  // after the point
  std::vector<Series> series;
};

struct Map {
  std::string id, title, about;
  std::string row_label, column_label;
  std::string low, high;  // what 0 and 1 mean
  std::vector<std::string> rows, columns;
  std::vector<std::vector<std::optional<double>>> cells;  // [rows][columns], 0 to 1
};

struct Results {
  std::string kind;                  // "needle", "ppl", "flatness"
  std::string title;                 // for people
  std::string bars;                  // what the curves' low and high are
  std::vector<std::string> summary;  // lines for people
  Json options;                      // what was asked for
  Json models;                       // [{"label", "models": [as `acuity models --json`]}]
  std::vector<Curve> curves;
  std::vector<Map> maps;
};

// One series out of the points of each of its models: Spread() at each x that any of them has.
Series MakeSeries(std::string label, const std::vector<Points>& of_models);

// {"kind", "title", "bars", "summary", "options", "models", "curves": [{"id", "title", "about",
// "x_label", "x_scale", "y_scale", "digits", "series": [{"label", "points": [{"x", "value", "low",
// "high", "count"}]}]}], "maps": [{"id", "title", "about", "row_label", "column_label", "low",
// "high", "rows", "columns", "cells": [[number or null]]}]}; scales are "linear", "log" or "share".
Json ToJson(const Results& results);

// Every curve as a table: a row for each x, a column for each series.
std::string Tables(const Results& results);

// One HTML file that shows `results` (of ToJson) and asks the network for nothing.
std::string ResultsPage(const Json& results);

// Writes results.json and report.html into `folder`, which is made if it is not there. Throws
// std::runtime_error naming the file that cannot be written.
void WriteResults(const Json& results, const std::string& folder);

}  // namespace acuity::client
