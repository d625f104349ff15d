// What `acuity calibrate` shows.
#include <algorithm>
#include <cstdio>

#include "clients/cpp/calibrate.h"

namespace acuity::client {
namespace {

constexpr int64_t kBins = 16;

// [bins], the mean over texts.
std::vector<LossBin> Bins(const CalibrationPass& pass) {
  std::vector<LossBin> mean;
  for (const std::vector<double>& logprobs : pass.logprobs) {
    const auto tokens = static_cast<int64_t>(logprobs.size());
    const auto bins = LossByPosition(logprobs, std::max<int64_t>(1, tokens / kBins));
    mean.resize(bins.size());
    for (size_t i = 0; i < bins.size(); ++i) {
      mean[i].begin = bins[i].begin;
      mean[i].end = bins[i].end;
      mean[i].loss += bins[i].loss / static_cast<double>(pass.logprobs.size());
    }
  }
  return mean;
}

std::string Row(const std::string& label, const std::vector<double>& values) {
  char cell[32];
  std::snprintf(cell, sizeof(cell), "%16s", label.c_str());
  std::string line = cell;
  for (const double value : values) {
    std::snprintf(cell, sizeof(cell), "%10.4f", value);
    line += cell;
  }
  return line + "\n";
}

}  // namespace

std::string LossTable(const std::vector<const CalibrationPass*>& passes, int64_t trained) {
  std::string text;
  std::vector<std::vector<LossBin>> columns;
  std::vector<double> within, beyond;
  std::string header(16, ' ');
  for (const CalibrationPass* pass : passes) {
    char label[32];
    std::snprintf(label, sizeof(label), "%10c", static_cast<char>('A' + columns.size()));
    header += label;
    text += std::string("  ") + static_cast<char>('A' + columns.size()) + ": " + pass->name + "\n";
    columns.push_back(Bins(*pass));
    within.push_back(pass->within);
    beyond.push_back(pass->beyond);
  }
  text += header + "\n";
  for (size_t row = 0; row < columns.front().size(); ++row) {
    const LossBin& bin = columns.front()[row];
    std::vector<double> values;
    for (const std::vector<LossBin>& column : columns) values.push_back(column[row].loss);
    text += Row(std::to_string(bin.begin) + "-" + std::to_string(bin.end), values);
  }
  text += Row("0-" + std::to_string(trained), within);
  return text + Row(std::to_string(trained) + "-", beyond);
}

Json ToJson(const CalibrationPass& pass, int64_t trained) {
  Json bins = Json::array();
  for (const LossBin& bin : Bins(pass)) {
    bins.push_back({{"begin", bin.begin}, {"end", bin.end}, {"loss", bin.loss}});
  }
  Json entropies = Json::array();
  for (const std::vector<Entropies>& layer : pass.entropies) {
    Json& row = entropies.emplace_back(Json::array());
    for (const Entropies& head : layer) {
      row.push_back({{"within", head.within}, {"beyond", head.beyond}});
    }
  }
  return {{"name", pass.name},
          {"seconds", pass.seconds},
          {"trained_context", trained},
          {"loss_within", pass.within},
          {"loss_beyond", pass.beyond},
          {"loss_by_position", std::move(bins)},
          {"entropy_nats", std::move(entropies)},
          {"sidecar", pass.sidecar}};
}

}  // namespace acuity::client
