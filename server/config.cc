#include "server/config.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <set>
#include <thread>

#include "engine/gpu/cuda/cuda.h"

namespace acuity::server {
namespace {

struct RawConfig {
  std::vector<std::string> models, attention;
  std::string dtype = "auto", kv_dtype = "auto", device = "auto", kv_memory = "auto";
};

// "512MiB", "2GB", "1073741824".
int64_t ParseBytes(const std::string& flag, const std::string& text) {
  static const std::map<std::string, int64_t> units = {
      {"", 1},          {"B", 1},         {"KB", 1000},    {"MB", 1000'000}, {"GB", 1000'000'000},
      {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
  size_t digits = 0;
  double value = -1;
  try {
    value = std::stod(text, &digits);
  } catch (const std::exception&) {
    // Reported below: value stays negative.
  }
  const auto unit = units.find(text.substr(value < 0 ? text.size() : digits));
  const double bytes = unit == units.end() ? -1 : value * static_cast<double>(unit->second);
  if (value < 0 || !(bytes >= 1) || bytes > 9e15) {
    throw CLI::ValidationError(flag, "\"" + text + "\" is not a size, for example 512MiB or 2GB");
  }
  return static_cast<int64_t>(bytes);
}

// "NAME=VALUE", both non-empty.
std::pair<std::string, std::string> SplitPair(const std::string& flag, const std::string& text,
                                              const char* form) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos || equals + 1 == text.size()) {
    throw CLI::ValidationError(flag, "\"" + text + "\" is not of the form " + form);
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

void AddConnectionOptions(CLI::App& app, DaemonConfig& config) {
  app.add_option(
         "--drain-delay", config.drain_delay_seconds,
         "After SIGTERM, seconds of NOT_SERVING in which new requests are still taken, for\n"
         "load balancers to notice")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  auto* tokens =
      app.add_option(
             "--auth-tokens", config.auth_tokens,
             "Bearer tokens, a file of lines \"TENANT SHA256-OF-TOKEN\"; then every call but\n"
             "health checks needs one. Reloaded when it changes and on SIGHUP")
          ->type_name("FILE");
  app.add_option("--tenant-max-requests", config.tenant_max_requests,
                 "Requests of one tenant at a time; 0: no limit")
      ->check(CLI::Range(0, 1 << 20))
      ->needs(tokens)
      ->capture_default_str();
  app.add_option("--tenant-max-queued-tokens", config.tenant_max_queued_tokens,
                 "Prompt tokens of one tenant's requests that have no answer yet; 0: no limit")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->needs(tokens)
      ->capture_default_str();
  auto* cert = app.add_option("--tls-cert", config.tls_cert,
                              "TLS: certificate chain, PEM. Reloaded when it changes and on SIGHUP")
                   ->type_name("FILE");
  auto* key = app.add_option("--tls-key", config.tls_key, "TLS: private key, PEM")
                  ->type_name("FILE")
                  ->needs(cert);
  cert->needs(key);
  app.add_option("--tls-client-ca", config.tls_client_ca,
                 "TLS: clients must have a certificate that one of these signed, PEM")
      ->type_name("FILE")
      ->needs(cert);
}

void AddModelOptions(CLI::App& app, RawConfig& raw, DaemonConfig& config) {
  app.add_option("--model", raw.models, "A model to serve, a GGUF file; may be repeated")
      ->type_name("NAME=PATH")
      ->required();
  app.add_option("--attention", raw.attention,
                 "Logit policy of a model: softmax, ssmax:s=0.17[,b=0.1], ssmax:auto[:L], logn:L,\n"
                 "llama4:scale=S,floor=F, ministral:beta=B,context=L, sharpen:length=L,s=S[,b=B],\n"
                 "file:SIDECAR.json; may be repeated")
      ->type_name("NAME=POLICY");
  app.add_option("--dtype", raw.dtype, "Weights: auto (bfloat16), float32, bfloat16")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--kv-dtype", raw.kv_dtype,
                 "KV cache: auto (as --dtype), float32, bfloat16, float8 (e4m3; half of\n"
                 "bfloat16's memory, at a loss: docs/operations.md)")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float8"}))
      ->capture_default_str();
  app.add_option("--device", raw.device,
                 "auto (the CPU, until a GPU has proven the CUDA engine), cpu, cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--kv-memory", raw.kv_memory,
                 "KV cache of each model; auto: 1GiB, or with cuda what is free on the GPU")
      ->type_name("SIZE")
      ->capture_default_str();
  app.add_option("--max-context", config.max_context,
                 "Tokens of prompt and output together; 0: what the model was trained to")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--block-size", config.block_size, "Tokens per KV block")
      ->check(CLI::IsMember({8, 16, 32, 64}))
      ->capture_default_str();
}

void AddOptions(CLI::App& app, RawConfig& raw, DaemonConfig& config) {
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  app.set_version_flag("--version", "acuityd " ACUITY_VERSION);
  app.set_config("--config", "", "Configuration file (TOML), with the names of these flags")
      ->type_name("FILE");
  app.allow_config_extras(CLI::config_extras_mode::error);
  AddModelOptions(app, raw, config);
  app.add_option("--listen", config.listen, "gRPC address: HOST:PORT or unix:PATH")
      ->type_name("ADDR")
      ->capture_default_str();
  app.add_option("--metrics-listen", config.metrics_listen, "Prometheus address; \"\" for none")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--max-batch-tokens", config.max_batch_tokens, "Token budget of one engine step")
      ->check(CLI::Range(16, 8192))
      ->capture_default_str();
  app.add_option("--max-running", config.max_running, "Sequences in one engine step")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--max-queue", config.max_queue, "Sequences that may wait; more are refused")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-queue-tokens", config.max_queue_tokens, "Prompt tokens that may wait")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--report-min-tokens", config.report_min_tokens,
                 "Prompts at least this long get an attention report by default")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--threads", config.threads,
                 "Compute threads; 0: one per core (" + std::to_string(cores) + " here)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--drain-seconds", config.drain_seconds,
                 "After SIGTERM, how long running requests may take to finish")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  AddConnectionOptions(app, config);
  app.add_flag("--reflection,!--no-reflection", config.reflection, "gRPC server reflection")
      ->capture_default_str();
  app.add_option("--log-level", config.log_level, "debug, info, warn, error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
}

kernels::DType TypeNamed(const std::string& name) {
  for (const auto type : {kernels::DType::kFloat32, kernels::DType::kFloat8}) {
    if (name == kernels::DTypeName(type)) return type;
  }
  return kernels::DType::kBFloat16;
}

void Resolve(const RawConfig& raw, DaemonConfig& config) {
  std::set<std::string> names;
  for (const std::string& text : raw.models) {
    const auto [name, path] = SplitPair("--model", text, "NAME=PATH");
    if (!names.insert(name).second) {
      throw CLI::ValidationError("--model", "\"" + name + "\" is given twice");
    }
    config.models.push_back({name, path, ""});
  }
  for (const std::string& text : raw.attention) {
    const auto [name, policy] = SplitPair("--attention", text, "NAME=POLICY");
    const auto model = std::find_if(config.models.begin(), config.models.end(),
                                    [&](const ModelConfig& m) { return m.name == name; });
    if (model == config.models.end()) {
      throw CLI::ValidationError("--attention", "no --model is named \"" + name + "\"");
    }
    model->attention_policy = policy;
  }
  config.dtype = TypeNamed(raw.dtype);
  config.kv_dtype = raw.kv_dtype == "auto" ? config.dtype : TypeNamed(raw.kv_dtype);
  config.cuda = raw.device == "cuda";
  if (config.cuda && raw.kv_dtype == "float32") {
    throw CLI::ValidationError("--kv-dtype",
                               "float32 is not for --device cuda, which has bfloat16 and float8");
  }
  if (config.cuda) {
    const absl::Status available = engine::CheckCuda();
    if (!available.ok()) {
      throw CLI::ValidationError("--device cuda", std::string(available.message()));
    }
    config.kv_memory_bytes = 0;
  }
  if (raw.kv_memory != "auto") {
    config.kv_memory_bytes = ParseBytes("--kv-memory", raw.kv_memory);
  }
  if (config.max_running > config.max_batch_tokens) {
    throw CLI::ValidationError("--max-running", std::to_string(config.max_running) +
                                                    " is more than --max-batch-tokens, " +
                                                    std::to_string(config.max_batch_tokens));
  }
}

}  // namespace

std::optional<DaemonConfig> ParseCommandLine(int argc, char** argv, int* exit_code) {
  CLI::App app("Acuity: serves transformer language models over gRPC and measures their attention",
               "acuityd");
  RawConfig raw;
  DaemonConfig config;
  AddOptions(app, raw, config);
  try {
    app.parse(argc, argv);
    Resolve(raw, config);
  } catch (const CLI::ParseError& e) {
    *exit_code = app.exit(e, std::cout, std::cerr) == 0 ? 0 : 2;
    return std::nullopt;
  }
  return config;
}

}  // namespace acuity::server
