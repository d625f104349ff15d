#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <random>
#include <thread>

#include "clients/cpp/commands.h"
#include "clients/cpp/connection.h"
#include "clients/cpp/json.h"

namespace acuity::client {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// What the requests measured, in seconds.
struct Measurements {
  std::mutex mutex;
  std::vector<double> first_token, inter_token, duration;
  int64_t output_tokens = 0;
  int64_t prompt_tokens = 0;
  int failed = 0;
  grpc::Status first_failure;
};

Json Percentiles(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  const auto at = [&](double p) {
    return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1) + 0.5)];
  };
  double sum = 0;
  for (double v : values) sum += v;
  return {{"mean", sum / static_cast<double>(values.size())},
          {"p50", at(.5)},
          {"p90", at(.9)},
          {"p99", at(.99)},
          {"max", values.back()}};
}

class Load {
 public:
  Load(const CommonOptions& common, std::string model, const BenchOptions& options, int vocab)
      : common_(common), model_(std::move(model)), options_(options), vocab_(vocab) {}

  void RunClosed(bool progress);
  void RunOpen(bool progress);
  Json Result(double wall) const;
  const Measurements& measurements() const { return m_; }

 private:
  v1::GenerateRequest MakeRequest(int index) const;
  void One(const Connection& connection, int index);
  void ShowProgress(bool progress);

  const CommonOptions& common_;
  const std::string model_;
  const BenchOptions& options_;
  const int vocab_;
  std::atomic<int> next_{0}, finished_{0};
  Measurements m_;
};

// Seeded by the index: the same load each time, another prompt for each request.
v1::GenerateRequest Load::MakeRequest(int index) const {
  v1::GenerateRequest request;
  request.set_model(model_);
  std::mt19937 random(options_.shared_prompt ? 0 : static_cast<unsigned>(index) + 1);
  auto* ids = request.mutable_prompt()->mutable_token_ids();
  // The first ids are special tokens in most vocabularies.
  std::uniform_int_distribution<int> any(std::min(300, vocab_ - 1), vocab_ - 1);
  for (int i = 0; i < options_.prompt_tokens; ++i) ids->add_ids(any(random));
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_max_tokens(options_.max_tokens);
  request.mutable_sampling()->set_ignore_eos(true);
  return request;
}

void Load::One(const Connection& connection, int index) {
  const v1::GenerateRequest request = MakeRequest(index);
  grpc::ClientContext context;
  const Clock::time_point start = Clock::now();
  const auto stream = connection.stub->Generate(&context, request);
  v1::GenerateResponse response;
  std::vector<Clock::time_point> times;
  while (stream->Read(&response)) {
    const Clock::time_point now = Clock::now();
    for (const v1::Delta& delta : response.deltas()) {
      for (int i = 0; i < delta.token_ids_size(); ++i) times.push_back(now);
    }
  }
  const grpc::Status status = stream->Finish();
  const Clock::time_point end = Clock::now();
  std::lock_guard lock(m_.mutex);
  if (!status.ok()) {
    if (m_.failed++ == 0) m_.first_failure = status;
  } else {
    if (!times.empty()) m_.first_token.push_back(Seconds(times.front() - start));
    for (size_t i = 1; i < times.size(); ++i) {
      m_.inter_token.push_back(Seconds(times[i] - times[i - 1]));
    }
    m_.duration.push_back(Seconds(end - start));
    m_.output_tokens += static_cast<int64_t>(times.size());
    m_.prompt_tokens += options_.prompt_tokens;
  }
  ++finished_;
}

void Load::ShowProgress(bool progress) {
  while (finished_ < options_.requests) {
    if (progress) {
      const int done = finished_;
      std::string bar(static_cast<size_t>(40 * done / options_.requests), '#');
      std::fprintf(stderr, "\r[%-40s] %d/%d", bar.c_str(), done, options_.requests);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (progress) std::fprintf(stderr, "\r%60s\r", "");
}

void Load::RunClosed(bool progress) {
  std::vector<std::thread> clients;
  for (int i = 0; i < std::min(options_.concurrency, options_.requests); ++i) {
    clients.emplace_back([this] {
      const Connection connection = Connect(common_);
      for (int index = next_++; index < options_.requests; index = next_++) One(connection, index);
    });
  }
  ShowProgress(progress);
  for (std::thread& client : clients) client.join();
}

void Load::RunOpen(bool progress) {
  const Connection connection = Connect(common_);
  std::thread arrivals([&] {
    std::mt19937 random(7);
    std::exponential_distribution<double> gap(options_.rate);
    std::vector<std::thread> running;
    for (int index = 0; index < options_.requests; ++index) {
      std::this_thread::sleep_for(std::chrono::duration<double>(gap(random)));
      running.emplace_back([this, &connection, index] { One(connection, index); });
    }
    for (std::thread& one : running) one.join();
  });
  ShowProgress(progress);
  arrivals.join();
}

Json Load::Result(double wall) const {
  return {{"model", model_},
          {"requests", options_.requests},
          {"failed", m_.failed},
          {"prompt_tokens_each", options_.prompt_tokens},
          {"max_tokens", options_.max_tokens},
          {"wall_seconds", wall},
          {"output_tokens_per_second", static_cast<double>(m_.output_tokens) / wall},
          {"prompt_tokens_per_second", static_cast<double>(m_.prompt_tokens) / wall},
          {"requests_per_second", static_cast<double>(m_.duration.size()) / wall},
          {"time_to_first_token_seconds", Percentiles(m_.first_token)},
          {"inter_token_seconds", Percentiles(m_.inter_token)},
          {"request_seconds", Percentiles(m_.duration)}};
}

void PrintTable(const Json& result) {
  std::printf("%d requests (%d failed) of %d prompt tokens, %d out, in %.1f s\n",
              result["requests"].get<int>(), result["failed"].get<int>(),
              result["prompt_tokens_each"].get<int>(), result["max_tokens"].get<int>(),
              result["wall_seconds"].get<double>());
  std::printf("throughput: %.1f output tokens/s, %.1f prompt tokens/s, %.2f requests/s\n",
              result["output_tokens_per_second"].get<double>(),
              result["prompt_tokens_per_second"].get<double>(),
              result["requests_per_second"].get<double>());
  std::printf("%-20s %9s %9s %9s %9s  (ms)\n", "", "p50", "p90", "p99", "max");
  for (const auto& [key, name] : {std::pair{"time_to_first_token_seconds", "time to first token"},
                                  std::pair{"inter_token_seconds", "inter-token latency"},
                                  std::pair{"request_seconds", "request"}}) {
    const Json& row = result[key];
    if (row.is_null()) continue;
    std::printf("%-20s", name);
    for (const char* p : {"p50", "p90", "p99", "max"})
      std::printf(" %9.1f", row[p].get<double>() * 1e3);
    std::printf("\n");
  }
}

}  // namespace

int Bench(const CommonOptions& common, const std::string& model, const BenchOptions& options) {
  const Connection connection = Connect(common);
  const std::string name = model.empty() ? DefaultModel(connection, common.server) : model;
  if (name.empty()) return 1;
  v1::GetModelRequest request;
  request.set_model(name);
  grpc::ClientContext context;
  v1::Model info;
  const grpc::Status status = connection.stub->GetModel(&context, request, &info);
  if (!status.ok()) return Complain(status, common.server);

  Load load(common, name, options, info.vocab_size());
  const bool progress = !common.json && isatty(STDERR_FILENO) != 0;
  const Clock::time_point start = Clock::now();
  if (options.rate > 0) {
    load.RunOpen(progress);
  } else {
    load.RunClosed(progress);
  }
  const Json result = load.Result(Seconds(Clock::now() - start));
  if (common.json) {
    Print(result);
  } else {
    PrintTable(result);
  }
  if (load.measurements().failed == 0) return 0;
  return Complain(load.measurements().first_failure, common.server);
}

}  // namespace acuity::client
