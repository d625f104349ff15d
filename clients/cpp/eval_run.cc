#include "clients/cpp/eval_run.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <iostream>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>

#include "clients/cpp/connection.h"
#include "clients/cpp/progress.h"

namespace acuity::client {
namespace {

void Check(const grpc::Status& status, const CommonOptions& common) {
  if (!status.ok()) throw std::runtime_error(Describe(status, common.server));
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string RandomSalt() {
  std::random_device device;
  return "eval-" + std::to_string((uint64_t{device()} << 32) | device());
}

}  // namespace

EvalDaemon::EvalDaemon(const CommonOptions& common)
    : common_(common),
      connection_(std::make_unique<const Connection>(Connect(common))),
      cache_salt_(RandomSalt()) {}

EvalDaemon::~EvalDaemon() = default;

v1::Model EvalDaemon::GetModel(const std::string& name) const {
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_model(name);
  v1::Model model;
  Check(connection_->stub->GetModel(&context, request, &model), common_);
  return model;
}

std::vector<Arm> EvalDaemon::Arms(const std::vector<std::string>& specs) const {
  std::vector<Arm> arms;
  for (const std::string& spec : specs) {
    const size_t equals = spec.find('=');
    const bool labelled = equals != std::string::npos;
    const std::vector<std::string> names =
        labelled ? Split(spec.substr(equals + 1), ',') : std::vector<std::string>{spec};
    Arm arm{labelled ? spec.substr(0, equals) : spec, {}};
    for (const Arm& other : arms) {
      if (other.label == arm.label) {
        throw std::runtime_error("--model: " + arm.label + " is there twice");
      }
    }
    for (const std::string& name : names) arm.models.push_back(GetModel(name));
    arms.push_back(std::move(arm));
  }
  if (!arms.empty()) return arms;
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  Check(connection_->stub->ListModels(&context, {}, &response), common_);
  if (response.models_size() == 0) throw std::runtime_error("the daemon serves no model");
  return {{response.models(0).name(), {response.models(0)}}};
}

v1::TokenizeResponse EvalDaemon::Tokenize(const std::string& model,
                                          const v1::Prompt& prompt) const {
  grpc::ClientContext context;
  SetDeadline(context, common_);
  v1::TokenizeRequest request;
  request.set_model(model);
  *request.mutable_prompt() = prompt;
  v1::TokenizeResponse response;
  Check(connection_->stub->Tokenize(&context, request, &response), common_);
  return response;
}

v1::ScoreResponse EvalDaemon::Score(const v1::ScoreRequest& request) const {
  grpc::ClientContext context;
  SetDeadline(context, common_);
  v1::ScoreResponse response;
  Check(connection_->stub->Score(&context, request, &response), common_);
  return response;
}

Generated EvalDaemon::Generate(const v1::GenerateRequest& request) const {
  grpc::ClientContext context;
  SetDeadline(context, common_);
  const auto stream = connection_->stub->Generate(&context, request);
  Generated out;
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    for (const v1::Delta& delta : response.deltas()) {
      out.text += delta.text();
      out.token_ids.insert(out.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    }
    if (response.has_result()) out.result = std::move(*response.mutable_result());
  }
  Check(stream->Finish(), common_);
  return out;
}

Json ArmsJson(const std::vector<Arm>& arms) {
  Json out = Json::array();
  for (const Arm& arm : arms) {
    Json models = Json::array();
    for (const v1::Model& model : arm.models) {
      Json m = ToJson(model);
      m.erase("status");
      models.push_back(std::move(m));
    }
    out.push_back({{"label", arm.label}, {"models", std::move(models)}});
  }
  return out;
}

v1::GenerateRequest GreedyRequest(const EvalDaemon& daemon, const std::string& model,
                                  int max_tokens) {
  v1::GenerateRequest request;
  request.set_model(model);
  request.set_attention(v1::ATTENTION_DETAIL_OFF);
  request.set_cache_salt(daemon.cache_salt());
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_max_tokens(max_tokens);
  return request;
}

std::string ReadText(const std::string& path) {
  std::string text = ReadFile(path);
  if (text.empty()) throw std::runtime_error(path + ": it is empty");
  if (text.size() > kMaxTextBytes) {
    size_t end = kMaxTextBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    std::cerr << "acuity: " << path << ": " << text.size() << " bytes, the first " << end
              << " are read\n";
    text.resize(end);
  }
  return text;
}

std::vector<int> FittingLengths(std::vector<int> lengths, int shortest, int longest,
                                const std::string& why) {
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  std::vector<int> fitting;
  for (int length : lengths) {
    if (length >= shortest && length <= longest) {
      fitting.push_back(length);
    } else {
      std::cerr << "acuity: --lengths: " << length << " is left out; from " << shortest << " to "
                << longest << ", " << why << "\n";
    }
  }
  if (fitting.empty()) throw std::runtime_error("--lengths: none is left");
  return fitting;
}

int SmallestContext(const std::vector<Arm>& arms) {
  int context = INT_MAX;
  for (const Arm& arm : arms) {
    for (const v1::Model& model : arm.models) context = std::min(context, model.max_context());
  }
  return context;
}

void RunJobs(const std::string& what, const EvalOptions& options, const std::vector<Job>& jobs) {
  int64_t total = 0;
  for (const Job& job : jobs) total += job.tokens;
  Progress progress(what, total);
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;  // guarded by mutex
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      try {
        jobs[i].run();
        progress.Advance(jobs[i].tokens);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (failure == nullptr) failure = std::current_exception();
        next = jobs.size();
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < options.concurrency; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure != nullptr) std::rethrow_exception(failure);
}

int Deliver(const Results& results, const CommonOptions& common, const EvalOptions& options) {
  const Json json = ToJson(results);
  if (!options.out.empty()) WriteResults(json, options.out);
  if (common.json) {
    Print(json);
    return 0;
  }
  std::cout << Tables(results);
  if (!options.out.empty()) {
    std::cout << "\nwritten: " << options.out << "/results.json, " << options.out
              << "/report.html\n";
  }
  return 0;
}

}  // namespace acuity::client
