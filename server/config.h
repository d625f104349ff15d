// The daemon's command line and configuration file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace acuity::server {

struct ModelConfig {
  std::string name;
  std::string path;
  std::string attention_policy;  // empty: the checkpoint's own
};

struct DaemonConfig {
  std::vector<ModelConfig> models;
  std::string listen = "127.0.0.1:8700";          // HOST:PORT or unix:PATH
  std::string metrics_listen = "127.0.0.1:8701";  // HOST:PORT; "": no metrics
  kernels::DType dtype = kernels::DType::kBFloat16;
  kernels::DType kv_dtype = kernels::DType::kBFloat16;
  bool cuda = false;                           // else the CPU
  int64_t kv_memory_bytes = int64_t{1} << 30;  // of each model; 0, with cuda: what is free
  int max_context = 0;
  int block_size = 16;
  int max_batch_tokens = 512;
  int max_running = 64;
  int max_queue = 256;
  int64_t max_queue_tokens = int64_t{1} << 20;
  int report_min_tokens = 1024;
  int threads = 0;  // 0: one per core
  double drain_seconds = 30;
  double drain_delay_seconds = 0;  // between NOT_SERVING and refusing new requests
  std::string auth_tokens;         // "": nobody needs a token
  int tenant_max_requests = 0;     // 0: no limit
  int64_t tenant_max_queued_tokens = 0;
  std::string tls_cert, tls_key, tls_client_ca;  // PEM files; "" and "": plaintext
  bool reflection = true;
  std::string log_level = "info";
};

// Reads argv and --config FILE (TOML, the same names). Returns nothing, with *exit_code set, after
// --help or --version (0) or after an error told on stderr (2).
std::optional<DaemonConfig> ParseCommandLine(int argc, char** argv, int* exit_code);

}  // namespace acuity::server
