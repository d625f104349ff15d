#include "clients/cpp/calibrate.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <numeric>
#include <optional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "clients/cpp/calibration_inputs.h"
#include "clients/cpp/child_daemon.h"
#include "clients/cpp/progress.h"
#include "clients/cpp/score_cache.h"
#include "engine/loader/status_util.h"

namespace acuity::client {
namespace {

using Clock = std::chrono::steady_clock;
using Tokens = std::vector<std::vector<int32_t>>;  // of each text

// How far beyond the trained length the slow pairs' angles may go, in trained lengths.
constexpr double kStretches[] = {0.25, 0.125};
// Times the first strength, as that helps or hurts.
constexpr double kMore = 1.5, kLess = 0.5;

volatile sig_atomic_t interrupted = 0;
void Interrupt(int) { interrupted = 1; }

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// A folder that goes with this object.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "acuity-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~Scratch() {
    std::error_code error;
    if (!path_.empty()) std::filesystem::remove_all(path_, error);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }  // empty: none could be made

 private:
  std::string path_;
};

// Scores texts with candidates, one daemon after the other.
class Scorer {
 public:
  Scorer(const CalibrateOptions& options, const CalibrationInputs& inputs, const ScoreCache& cache,
         std::string folder, int64_t most_tokens)
      : options_(options),
        inputs_(inputs),
        cache_(cache),
        folder_(std::move(folder)),
        progress_("calibrate", most_tokens) {}

  // Entropies are read only for texts that the sharpening is fitted on.
  absl::StatusOr<CalibrationPass> Run(const std::string& name, const Json& sidecar,
                                      const Tokens& texts, bool entropies);

 private:
  absl::StatusOr<std::unique_ptr<ChildDaemon>> StartDaemon(const Json& sidecar);
  absl::StatusOr<v1::ScoreResponse> Score(ChildDaemon& daemon, const std::vector<int32_t>& tokens,
                                          bool entropies);
  // `tokens` of the present pass are done.
  void AdvanceTo(int64_t tokens);

  const CalibrateOptions& options_;
  const CalibrationInputs& inputs_;
  const ScoreCache& cache_;
  const std::string folder_;
  Progress progress_;
  int64_t reported_ = 0;  // tokens of the present pass that progress_ knows of
};

void Scorer::AdvanceTo(int64_t tokens) {
  if (tokens <= reported_) return;
  progress_.Advance(tokens - reported_);
  reported_ = tokens;
}

// Since the daemon's start; 0 if it does not say.
int64_t ComputedTokens(const Connection& connection) {
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_model("model");
  v1::Model model;
  if (!connection.stub->GetModel(&context, request, &model).ok()) return 0;
  return model.status().computed_tokens();
}

absl::StatusOr<v1::ScoreResponse> Scorer::Score(ChildDaemon& daemon,
                                                const std::vector<int32_t>& tokens,
                                                bool entropies) {
  v1::ScoreRequest request;
  request.set_model("model");
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(tokens.begin(), tokens.end());
  request.set_attention(entropies ? v1::ATTENTION_DETAIL_HEADS : v1::ATTENTION_DETAIL_OFF);
  const Connection& connection = daemon.connection();
  grpc::ClientContext context;
  v1::ScoreResponse response;
  std::future<grpc::Status> call = std::async(
      std::launch::async, [&] { return connection.stub->Score(&context, request, &response); });
  while (call.wait_for(std::chrono::milliseconds(300)) != std::future_status::ready) {
    if (interrupted != 0) context.TryCancel();
    AdvanceTo(ComputedTokens(connection));
  }
  const grpc::Status status = call.get();
  if (interrupted != 0) return absl::CancelledError("interrupted");
  if (!status.ok()) {
    ACUITY_RETURN_IF_ERROR(daemon.Check());
    return absl::InternalError(absl::StrCat("score: ", status.error_message()));
  }
  return response;
}

absl::StatusOr<std::unique_ptr<ChildDaemon>> Scorer::StartDaemon(const Json& sidecar) {
  const std::string path = absl::StrCat(folder_, "/sidecar.json");
  std::ofstream(path) << sidecar.dump();
  std::vector<std::string> arguments = inputs_.daemon_arguments;
  arguments.insert(arguments.end(), {"--attention", absl::StrCat("model=file:", path)});
  return ChildDaemon::Start(inputs_.daemon, arguments, folder_, &interrupted);
}

absl::StatusOr<CalibrationPass> Scorer::Run(const std::string& name, const Json& sidecar,
                                            const Tokens& texts, bool entropies) {
  const Clock::time_point start = Clock::now();
  CalibrationPass pass;
  pass.name = name;
  pass.sidecar = sidecar;
  reported_ = 0;
  std::unique_ptr<ChildDaemon> daemon;
  for (const std::vector<int32_t>& tokens : texts) {
    std::optional<v1::ScoreResponse> response = cache_.Find(sidecar, tokens, entropies);
    if (!response.has_value()) {
      if (daemon == nullptr) {
        ACUITY_ASSIGN_OR_RETURN(daemon, StartDaemon(sidecar));
      }
      ACUITY_ASSIGN_OR_RETURN(response, Score(*daemon, tokens, entropies));
      cache_.Keep(sidecar, tokens, entropies, *response);
    }
    const std::vector<double>& logprobs =
        pass.logprobs.emplace_back(response->logprobs().begin(), response->logprobs().end());
    const auto rows = static_cast<int64_t>(logprobs.size()) - 1;
    pass.within += MeanLoss(logprobs, 0, options_.trained_context);
    pass.beyond += MeanLoss(logprobs, options_.trained_context, rows);
    if (!entropies) continue;
    ACUITY_ASSIGN_OR_RETURN(auto heads,
                            ReadEntropies(response->prompt_attention(), inputs_.buckets));
    AddEntropies(heads, 1.0 / static_cast<double>(texts.size()), &pass.entropies);
  }
  pass.within /= static_cast<double>(texts.size());
  pass.beyond /= static_cast<double>(texts.size());
  pass.seconds = Seconds(Clock::now() - start);
  char line[256];
  std::snprintf(line, sizeof line, "%s: loss %.4f within, %.4f beyond, %.0f s", name.c_str(),
                pass.within, pass.beyond, pass.seconds);
  progress_.Say(line);
  AdvanceTo(static_cast<int64_t>(texts.size()) * options_.to_context);
  return pass;
}

Json WithSharpening(Json sidecar, const HeadSharpenings& heads, double strength, int64_t trained) {
  Json s = Json::array(), b = Json::array();
  const auto rounded = [](double value) { return std::round(value * 1e4) / 1e4; };
  for (const std::vector<Sharpening>& layer : heads) {
    Json& s_row = s.emplace_back(Json::array());
    Json& b_row = b.emplace_back(Json::array());
    for (const Sharpening& head : layer) {
      s_row.push_back(rounded(strength * head.s));
      b_row.push_back(rounded(strength * head.b));
    }
  }
  sidecar["attention"] = {{"policy", "sharpen"}, {"length", trained}, {"s", s}, {"b", b}};
  return sidecar;
}

Json WithGlobal(Json sidecar, const Sharpening& global, int64_t trained) {
  sidecar["attention"] = {
      {"policy", "sharpen"}, {"length", trained}, {"s", global.s}, {"b", global.b}};
  return sidecar;
}

// 1.1 ln n / ln L beyond L: the best that was found by hand (docs/calibration.md).
Sharpening GlobalFactor(int64_t trained) {
  return {1.1 / std::log(static_cast<double>(trained)), 0.1};
}

// The passes on the calibration texts, in order, and which of them is the result.
struct Calibration {
  std::vector<CalibrationPass> passes;
  size_t extension = 0, global = 0, best = 0;
};

absl::Status ChooseRope(const CalibrationInputs& inputs, const CalibrateOptions& options,
                        Scorer& scorer, Calibration* result) {
  const Json plain = {{"context", inputs.context}};
  ACUITY_ASSIGN_OR_RETURN(CalibrationPass pass,
                          scorer.Run("as trained", plain, inputs.texts, true));
  result->passes.push_back(std::move(pass));
  const auto trained = static_cast<double>(options.trained_context);
  for (const double stretch : options.keep_rope ? std::span<const double>() : kStretches) {
    if (inputs.frequencies.empty()) break;
    const double slope =
        std::min(1.0, stretch * trained / (static_cast<double>(options.to_context) - trained));
    Json sidecar = plain;
    sidecar["rope"] = {{"knee", options.trained_context},
                       {"slopes", KneeSlopes(inputs.frequencies, options.trained_context, slope)}};
    ACUITY_ASSIGN_OR_RETURN(
        pass, scorer.Run(absl::StrCat("rotary slope ", slope), sidecar, inputs.texts, true));
    result->passes.push_back(std::move(pass));
    if (result->passes.back().beyond < result->passes[result->extension].beyond) {
      result->extension = result->passes.size() - 1;
    }
  }
  result->best = result->extension;
  return absl::OkStatus();
}

absl::Status ChooseSharpening(const CalibrationInputs& inputs, const CalibrateOptions& options,
                              Scorer& scorer, Calibration* result) {
  const int64_t trained = options.trained_context;
  const CalibrationPass plain = result->passes[result->extension];
  const auto run = [&](const std::string& name, const Json& sidecar) -> absl::Status {
    ACUITY_ASSIGN_OR_RETURN(CalibrationPass pass, scorer.Run(name, sidecar, inputs.texts, true));
    if (pass.beyond < result->passes[result->best].beyond) result->best = result->passes.size();
    result->passes.push_back(std::move(pass));
    return absl::OkStatus();
  };
  const Sharpening global = GlobalFactor(trained);
  ACUITY_RETURN_IF_ERROR(run("one global factor", WithGlobal(plain.sidecar, global, trained)));
  result->global = result->passes.size() - 1;
  HeadSharpenings heads;
  for (size_t layer = 0; layer < plain.entropies.size(); ++layer) {
    std::vector<Sharpening>& row = heads.emplace_back();
    for (size_t head = 0; head < plain.entropies[layer].size(); ++head) {
      row.push_back(FitHead(plain.entropies[layer][head],
                            result->passes[result->global].entropies[layer][head], global,
                            inputs.buckets, trained));
    }
  }
  const auto per_head = [&](double strength) {
    return run(absl::StrCat("per head, ", std::round(strength * 100) / 100, " of the fit"),
               WithSharpening(plain.sidecar, heads, strength, trained));
  };
  const double strength = EqualStrength(heads, global, inputs.buckets, trained);
  if (strength == 0) return absl::OkStatus();  // no head is flatter beyond
  ACUITY_RETURN_IF_ERROR(per_head(strength));
  return per_head(strength * (result->passes.back().beyond < plain.beyond ? kMore : kLess));
}

// Scores a text that had no part in the choice: as trained, with one factor for all heads, as
// chosen.
absl::StatusOr<std::vector<CalibrationPass>> CheckHeldOut(const std::vector<int32_t>& text,
                                                          const Calibration& calibration,
                                                          Scorer& scorer) {
  std::vector<size_t> which = {0, calibration.global};
  if (calibration.best != 0 && calibration.best != calibration.global) {
    which.push_back(calibration.best);
  }
  std::vector<CalibrationPass> passes;
  for (const size_t index : which) {
    const CalibrationPass& chosen = calibration.passes[index];
    ACUITY_ASSIGN_OR_RETURN(CalibrationPass pass,
                            scorer.Run(chosen.name, chosen.sidecar, {text}, false));
    passes.push_back(std::move(pass));
  }
  return passes;
}

void PrintTable(const std::string& title, const std::vector<CalibrationPass>& passes,
                int64_t trained) {
  std::vector<const CalibrationPass*> pointers;
  for (const CalibrationPass& pass : passes) pointers.push_back(&pass);
  std::cout << title << "\n" << LossTable(pointers, trained);
}

Json PassesJson(const std::vector<CalibrationPass>& passes, int64_t trained) {
  Json json = Json::array();
  for (const CalibrationPass& pass : passes) json.push_back(ToJson(pass, trained));
  return json;
}

absl::Status WriteFile(const std::string& path, const Json& json) {
  std::ofstream file(path);
  file << json.dump(2) << "\n";
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

// After every step, so that an interrupt loses one only. Does nothing without a path.
absl::Status WriteReport(const std::string& path, const Json& report) {
  return path.empty() ? absl::OkStatus() : WriteFile(path, report);
}

absl::Status RunCalibration(const CalibrateOptions& given, bool json) {
  ACUITY_ASSIGN_OR_RETURN(const CalibrationInputs inputs, OpenCalibrationInputs(given));
  CalibrateOptions options = given;
  options.trained_context = inputs.trained_context;
  const Scratch scratch;
  if (scratch.path().empty()) return absl::UnavailableError("no temporary folder can be made");
  const size_t passes = 1 + (options.keep_rope ? 0 : std::size(kStretches)) + 3;
  const size_t checks = 3 * inputs.held_out.size();
  const ScoreCache cache(options.report.empty() ? "" : options.report + ".scores", options.model);
  Scorer scorer(options, inputs, cache, scratch.path(),
                static_cast<int64_t>(passes * inputs.texts.size() + checks) * options.to_context);
  Calibration calibration;
  ACUITY_RETURN_IF_ERROR(ChooseRope(inputs, options, scorer, &calibration));
  ACUITY_RETURN_IF_ERROR(ChooseSharpening(inputs, options, scorer, &calibration));
  const CalibrationPass& best = calibration.passes[calibration.best];
  ACUITY_RETURN_IF_ERROR(WriteFile(options.out, best.sidecar));
  std::cerr << "wrote " << options.out << ": " << best.name << "\n";

  const int64_t trained = options.trained_context;
  Json report = {{"model", options.model},
                 {"trained_context", trained},
                 {"to_context", options.to_context},
                 {"texts", options.texts},
                 {"chosen", best.name},
                 {"calibration", PassesJson(calibration.passes, trained)},
                 {"held_out", Json::array()}};
  if (!json) PrintTable("Loss (nats a token) on the calibration text", calibration.passes, trained);
  ACUITY_RETURN_IF_ERROR(WriteReport(options.report, report));
  for (size_t i = 0; i < inputs.held_out.size(); ++i) {
    ACUITY_ASSIGN_OR_RETURN(const std::vector<CalibrationPass> held,
                            CheckHeldOut(inputs.held_out[i], calibration, scorer));
    if (!json) PrintTable(absl::StrCat("Held out: ", options.held_out[i]), held, trained);
    report["held_out"].push_back(
        {{"text", options.held_out[i]}, {"passes", PassesJson(held, trained)}});
    ACUITY_RETURN_IF_ERROR(WriteReport(options.report, report));
  }
  cache.Clear();
  if (json) Print(report);
  return absl::OkStatus();
}

}  // namespace

int Calibrate(const CalibrateOptions& options, bool json) {
  struct sigaction action = {};
  action.sa_handler = Interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const absl::Status status = RunCalibration(options, json);
  if (status.ok()) return 0;
  std::cerr << (isatty(STDERR_FILENO) != 0 ? "\r\x1b[K" : "") << "acuity: " << status.message()
            << "\n";
  return interrupted != 0 ? 130 : 1;
}

}  // namespace acuity::client
