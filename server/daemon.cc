#include "server/daemon.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cpu/thread_pool.h"
#include "server/grpc/grpc_server.h"
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
                                 : std::max(1u, std::thread::hardware_concurrency())) {}

  absl::Status Start();
  void ServeUntilSignal();
  void Drain();

 private:
  absl::Status LoadModels();
  bool AnyStuck() const;

  const DaemonConfig& config_;
  kernels::ThreadPool pool_;
  std::unique_ptr<Metrics> metrics_;
  std::vector<std::unique_ptr<LoggingObserver>> observers_;
  ModelTable models_;
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
  const absl::Status loaded = LoadModels();
  if (!loaded.ok()) return loaded;
  auto server = GrpcServer::Start(config_.listen, config_.reflection, &models_);
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  Log(LogLevel::kInfo, "serving",
      {{"listen", server_->address()}, {"metrics", metrics_->address()}});
  return absl::OkStatus();
}

absl::Status Daemon::LoadModels() {
  for (const ModelConfig& model : config_.models) {
    observers_.push_back(
        std::make_unique<LoggingObserver>(model.name, metrics_->AddModel(model.name)));
    engine::EngineObserver* observer = observers_.back().get();
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
         {"attention_policy", info.policy},
         {"parameters", info.parameters},
         {"weight_bytes", info.weight_bytes},
         {"kv_bytes", info.kv_bytes},
         {"cpu_isa", info.isa},
         {"seconds", info.load_seconds}});
    metrics_->WatchEngine(model.name, engine->get());
    models_.Add(model.name, {observer, *std::move(engine)});
  }
  return absl::OkStatus();
}

bool Daemon::AnyStuck() const {
  const absl::Time now = absl::Now();
  return std::any_of(models_.all().begin(), models_.all().end(), [&](const auto& entry) {
    return now - entry.second.engine->gauges().last_progress > kStuckAfter;
  });
}

void Daemon::ServeUntilSignal() {
  const sigset_t signals = StopSignals();
  const timespec period = absl::ToTimespec(kHealthPeriod);
  bool serving = true;
  while (sigtimedwait(&signals, nullptr, &period) < 0) {
    const bool healthy = !AnyStuck();
    if (healthy == serving) continue;
    serving = healthy;
    server_->SetServing(healthy);
    Log(healthy ? LogLevel::kInfo : LogLevel::kError,
        healthy ? "engine moves again" : "engine is stuck");
  }
}

void Daemon::Drain() {
  server_->SetServing(false);
  const absl::Time deadline = absl::Now() + absl::Seconds(config_.drain_seconds);
  Log(LogLevel::kInfo, "draining", {{"seconds", config_.drain_seconds}});
  // A second signal ends the process at once.
  std::thread([] {
    const sigset_t signals = StopSignals();
    int signal = 0;
    sigwait(&signals, &signal);
    Log(LogLevel::kWarn, "second signal: ending now");
    std::_Exit(128 + signal);
  }).detach();

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
  const sigset_t signals = StopSignals();
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
