#include "clients/cpp/heat_map.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <vector>

namespace acuity::client {
namespace {

struct Mean {
  double sum = 0;
  int64_t weight = 0;
  double value() const { return weight == 0 ? 0 : sum / static_cast<double>(weight); }
};

std::string Format(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// 256-colour palette: blue, cyan, green, yellow, orange, red.
int Colour(double flatness) {
  static constexpr int kPalette[] = {18, 19, 25, 31, 37, 72, 107, 143, 179, 173, 167, 160};
  constexpr int kLast = static_cast<int>(std::size(kPalette)) - 1;
  const int index = static_cast<int>(std::clamp(flatness, 0.0, 1.0) * kLast + 0.5);
  return kPalette[index];
}

std::string Cell(double flatness, bool colour) {
  const std::string number = Format(" %.2f  ", flatness);
  if (!colour) return number;
  return "\033[97;48;5;" + std::to_string(Colour(flatness)) + "m" + number + "\033[0m";
}

std::string ContextName(int64_t n) {
  if (n < 1024) return std::to_string(n);
  return std::to_string(n / 1024) + "k";
}

template <typename Get>
std::string SummaryRow(const char* name, const v1::AttentionReport& report,
                       const std::vector<int64_t>& columns, const char* format, Get get) {
  std::map<int64_t, Mean> means;
  for (const v1::LayerAttention& layer : report.layers()) {
    const int layers = layer.last_layer() - layer.layer() + 1;
    for (const v1::AttentionBucket& b : layer.buckets()) {
      means[b.n_min()].sum += get(b) * layers;
      means[b.n_min()].weight += layers;
    }
  }
  std::string row = name;
  for (int64_t n : columns) row += Format(format, means[n].value());
  return row + "\n";
}

}  // namespace

std::string DrawHeatMap(const v1::AttentionReport& report, const std::string& title, bool colour) {
  if (report.layers_size() == 0) return "";
  std::vector<int64_t> columns;
  for (const v1::LayerAttention& layer : report.layers()) {
    for (const v1::AttentionBucket& b : layer.buckets()) columns.push_back(b.n_min());
  }
  std::sort(columns.begin(), columns.end());
  columns.erase(std::unique(columns.begin(), columns.end()), columns.end());

  std::string out = title + "  (H / ln n: 0 sharp, 1 flat; policy " + report.layers(0).policy() +
                    ")\n  keys n >= ";
  for (int64_t n : columns) {
    char text[16];
    std::snprintf(text, sizeof text, "%5s  ", ContextName(n).c_str());
    out += text;
  }
  out += "\n";
  for (const v1::LayerAttention& layer : report.layers()) {
    char name[32];
    if (layer.last_layer() > layer.layer()) {
      std::snprintf(name, sizeof name, "layers %2d-%-2d", layer.layer(), layer.last_layer());
    } else {
      std::snprintf(name, sizeof name, "layer  %2d   ", layer.layer());
    }
    out += std::string(name) + " ";
    std::map<int64_t, double> cells;
    for (const v1::AttentionBucket& b : layer.buckets()) cells[b.n_min()] = b.normalized_entropy();
    for (int64_t n : columns) {
      const auto cell = cells.find(n);
      out += cell == cells.end() ? "       " : Cell(cell->second, colour);
    }
    out += "\n";
  }
  out += SummaryRow("mean H/ln n  ", report, columns, " %.3f ",
                    [](const auto& b) { return b.normalized_entropy(); });
  out += SummaryRow("max prob.    ", report, columns, " %.3f ",
                    [](const auto& b) { return b.max_probability(); });
  out += SummaryRow("eff. context ", report, columns, "%6.1f ",
                    [](const auto& b) { return b.effective_context(); });
  return out;
}

}  // namespace acuity::client
