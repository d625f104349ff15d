#include "server/daemon.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/gpu/cuda/cuda.h"
#include "kernels/cpu/thread_pool.h"
#include "server/file_watch.h"
#include "server/grpc/auth.h"
#include "server/grpc/credentials.h"
#include "server/grpc/grpc_server.h"
#include "server/grpc/request_totals.h"
#include "server/load_progress.h"
#include "server/log.h"
#include "server/metrics/metrics.h"
#include "server/request_log.h"

namespace acuity::server {
namespace {

// An engine with work but without a step for this long is stuck: health says NOT_SERVING.
constexpr absl::Duration kStuckAfter = absl::Seconds(10);
constexpr absl::Duration kHealthPeriod = absl::Milliseconds(500);
// How long answers to calls that the drain cancelled may take to reach their clients.
constexpr absl::Duration kFarewell = absl::Seconds(1);

// Connections cost descriptors: take all that the system allows.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Can anybody but this machine connect to it?
bool IsLocal(const std::string& address) {
  for (const char* prefix : {"unix:", "127.", "localhost:", "[::1]:"}) {
    if (absl::StartsWith(address, prefix)) return true;
  }
  return false;
}

// SIGTERM and SIGINT.
sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

int Fail(const absl::Status& status) {
  Log(LogLevel::kError, "start failed", {{"error", std::string(status.message())}});
  std::fprintf(stderr, "acuityd: %s\n", std::string(status.message()).c_str());
  return 1;
}

engine::EngineOptions MakeOptions(const DaemonConfig& config, const ModelConfig& model) {
  return {.name = model.name,
          .path = model.path,
          .attention_policy = model.attention_policy,
          .dtype = config.dtype,
          .kv_dtype = config.kv_dtype,
          .make_runner = config.cuda ? engine::CudaRunner() : engine::RunnerFactory(),
          .kv_memory_bytes = config.kv_memory_bytes,
          .max_context = config.max_context,
          .block_size = config.block_size,
          .max_batch_tokens = config.max_batch_tokens,
          .max_running = config.max_running,
          .max_waiting = config.max_queue,
          .max_waiting_tokens = config.max_queue_tokens,
          .report_min_tokens = config.report_min_tokens,
          .on_load = LogLoadProgress(model.name, model.path)};
}

class Daemon {
 public:
  explicit Daemon(const DaemonConfig& config)
      : config_(config),
        pool_(config.threads > 0 ? config.threads
                                 : std::max(1u, std::thread::hardware_concurrency())),
        tenants_({config.tenant_max_requests, config.tenant_max_queued_tokens}) {}

  absl::Status Start();
  void ServeUntilSignal();
  void Drain();

 private:
  absl::Status LoadModels();
  absl::Status LoadSecrets();
  void WarnIfExposed() const;
  void ReloadSecrets(bool all);
  // "", or what keeps a model from being served.
  std::string Ailment() const;
  // Once a model.
  void WarnOfSaturation();

  const DaemonConfig& config_;
  kernels::ThreadPool pool_;
  std::unique_ptr<Metrics> metrics_;
  std::vector<std::unique_ptr<LoggingObserver>> loggers_;
  std::vector<std::unique_ptr<RequestTotals>> totals_;
  ModelTable models_;
  std::set<std::string> saturated_;  // models that were warned of
  std::unique_ptr<Authenticator> auth_ = std::make_unique<Authenticator>();
  std::unique_ptr<TlsCredentials> tls_;  // null: plaintext
  FileWatch token_file_{{}}, tls_files_{{}};
  TenantLedger tenants_;
  std::unique_ptr<GrpcServer> server_;
};

absl::Status Daemon::Start() {
  if (config_.metrics_listen.empty()) {
    metrics_ = Metrics::Unserved();
  } else {
    auto metrics = Metrics::Start(config_.metrics_listen);
    if (!metrics.ok()) return metrics.status();
    metrics_ = *std::move(metrics);
  }
  if (const absl::Status secrets = LoadSecrets(); !secrets.ok()) return secrets;
  if (const absl::Status loaded = LoadModels(); !loaded.ok()) return loaded;
  auto server = GrpcServer::Start({config_.listen, config_.reflection, tls_.get()},
                                  {&models_, auth_.get(), &tenants_});
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  Log(LogLevel::kInfo, "serving",
      {{"listen", server_->address()}, {"metrics", metrics_->address()}});
  return absl::OkStatus();
}

absl::Status Daemon::LoadSecrets() {
  if (!config_.auth_tokens.empty()) {
    token_file_ = FileWatch({config_.auth_tokens});
    auto auth = Authenticator::Load(config_.auth_tokens);
    if (!auth.ok()) return auth.status();
    auth_ = *std::move(auth);
    auth_->set_refusals(metrics_->unauthenticated_calls());
    Log(LogLevel::kInfo, "tokens loaded", {{"tokens", int64_t{auth_->num_tokens()}}});
  }
  if (!config_.tls_cert.empty()) {
    tls_files_ = FileWatch({config_.tls_cert, config_.tls_key, config_.tls_client_ca});
    auto tls = TlsCredentials::Load({config_.tls_cert, config_.tls_key, config_.tls_client_ca});
    if (!tls.ok()) return tls.status();
    tls_ = *std::move(tls);
    Log(LogLevel::kInfo, "certificate loaded", {{"not_after", tls_->not_after()}});
  }
  WarnIfExposed();
  return absl::OkStatus();
}

void Daemon::WarnIfExposed() const {
  if (IsLocal(config_.listen) || (tls_ != nullptr && auth_->required())) return;
  const char* missing = auth_->required() ? "TLS: tokens and texts travel in clear"
                        : tls_ == nullptr ? "TLS and tokens: whoever reaches it may use it"
                        : config_.tls_client_ca.empty() ? "tokens: whoever reaches it may use it"
                                                        : nullptr;
  if (missing == nullptr) return;  // client certificates say who may
  Log(LogLevel::kWarn, "exposed listener",
      {{"listen", config_.listen}, {"without", std::string(missing)}});
}

// Files that do not load leave what was loaded before in use.
void Daemon::ReloadSecrets(bool all) {
  const auto reload = [all](const char* event, FileWatch& watch, auto* secret) {
    if (secret == nullptr || !(watch.Changed() || all)) return;
    const absl::Status status = secret->Reload();
    Log(status.ok() ? LogLevel::kInfo : LogLevel::kError, event,
        {{"status", absl::StatusCodeToString(status.code())},
         {"error", std::string(status.message())}});
  };
  reload("tokens reloaded", token_file_, auth_->required() ? auth_.get() : nullptr);
  reload("certificate reloaded", tls_files_, tls_.get());
}

absl::Status Daemon::LoadModels() {
  for (const ModelConfig& model : config_.models) {
    loggers_.push_back(
        std::make_unique<LoggingObserver>(model.name, metrics_->AddModel(model.name)));
    totals_.push_back(std::make_unique<RequestTotals>(loggers_.back().get()));
    RequestTotals* observer = totals_.back().get();
    auto engine = engine::Engine::Create(MakeOptions(config_, model), &pool_, observer);
    if (!engine.ok()) {
      return absl::Status(engine.status().code(),
                          absl::StrCat("model ", model.name, ": ", engine.status().message()));
    }
    const engine::ModelInfo& info = (*engine)->info();
    Log(LogLevel::kInfo, "model loaded",
        {{"model", model.name},
         {"path", model.path},
         {"architecture", info.architecture},
         {"dtype", info.dtype},
         {"kv_dtype", info.kv_dtype},
         {"attention_policy", info.policy},
         {"parameters", info.parameters},
         {"weight_bytes", info.weight_bytes},
         {"kv_bytes", info.kv_bytes},
         {"device", info.device},
         {"cpu_isa", info.isa},
         {"seconds", info.load_seconds}});
    metrics_->WatchEngine(model.name, engine->get());
    models_.Add(model.name, {observer, *std::move(engine)});
  }
  return absl::OkStatus();
}

std::string Daemon::Ailment() const {
  const absl::Time now = absl::Now();
  for (const auto& [name, model] : models_.all()) {
    const engine::EngineGauges gauges = model.engine->gauges();
    if (!gauges.health.ok()) return absl::StrCat("model ", name, ": ", gauges.health.message());
    if (now - gauges.last_progress > kStuckAfter) return absl::StrCat("model ", name, " is stuck");
  }
  return "";
}

void Daemon::WarnOfSaturation() {
  for (const auto& [name, model] : models_.all()) {
    const int64_t values = model.engine->gauges().saturated_values;
    if (values == 0 || !saturated_.insert(name).second) continue;
    Log(LogLevel::kWarn, "keys or values beyond 448 do not fit the 8-bit KV cache",
        {{"model", name}, {"values", values}});
  }
}

void Daemon::ServeUntilSignal() {
  sigset_t signals = StopSignals();
  sigaddset(&signals, SIGHUP);
  const timespec period = absl::ToTimespec(kHealthPeriod);
  bool serving = true;
  for (;;) {
    const int signal = sigtimedwait(&signals, nullptr, &period);
    if (signal == SIGTERM || signal == SIGINT) return;
    ReloadSecrets(signal == SIGHUP);
    WarnOfSaturation();
    const std::string ailment = Ailment();
    const bool healthy = ailment.empty();
    if (healthy == serving) continue;
    serving = healthy;
    server_->SetServing(healthy);
    if (healthy) {
      Log(LogLevel::kInfo, "serving again");
    } else {
      Log(LogLevel::kError, "not serving", {{"error", ailment}});
    }
  }
}

void Daemon::Drain() {
  server_->SetServing(false);
  Log(LogLevel::kInfo, "draining",
      {{"delay_seconds", config_.drain_delay_seconds}, {"seconds", config_.drain_seconds}});
  // A second signal ends the process at once.
  std::thread([] {
    const sigset_t signals = StopSignals();
    int signal = 0;
    sigwait(&signals, &signal);
    Log(LogLevel::kWarn, "second signal: ending now");
    std::_Exit(128 + signal);
  }).detach();
  absl::SleepFor(absl::Seconds(config_.drain_delay_seconds));

  const absl::Time deadline = absl::Now() + absl::Seconds(config_.drain_seconds);
  std::atomic<bool> complete{true};
  std::vector<std::thread> drains;
  for (const auto& [name, model] : models_.all()) {
    drains.emplace_back([&complete, engine = model.engine.get(), deadline] {
      if (!engine->Drain(deadline)) complete = false;
    });
  }
  for (std::thread& drain : drains) drain.join();
  server_->Shutdown(absl::Now() + kFarewell);
  metrics_->RemoveEngines();
  Log(LogLevel::kInfo, "ended", {{"all_requests_finished", complete.load()}});
}

}  // namespace

int RunDaemon(const DaemonConfig& config) {
  SetLogLevel(config.log_level);
  RaiseDescriptorLimit();
  sigset_t signals = StopSignals();
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  Daemon daemon(config);
  const absl::Status started = daemon.Start();
  if (!started.ok()) return Fail(started);
  daemon.ServeUntilSignal();
  daemon.Drain();
  return 0;
}

}  // namespace acuity::server
