#include "clients/cpp/calibration_inputs.h"

#include <cmath>
#include <fstream>

#include "clients/cpp/child_daemon.h"
#include "clients/cpp/inspect_model.h"
#include "engine/loader/policy.h"
#include "engine/loader/status_util.h"
#include "kernels/attention.h"

namespace acuity::client {
namespace {

using engine::Concat;
using engine::InvalidArgument;
using engine::LayerSpec;
using engine::ModelSpec;

constexpr int kBlockTokens = 16;  // acuityd's default
// The longest tokens are words of a few dozen bytes; more text than this is not looked at.
constexpr int64_t kMaxBytesPerToken = 64;

absl::Status CheckModel(const ModelSpec& spec, const std::string& path) {
  for (const LayerSpec& layer : spec.layers) {
    if (layer.policy.kind == kernels::RowScaleKind::kSoftmax) continue;
    return InvalidArgument(path, ": it has an attention policy of its own, ", layer.policy.name,
                           ", which a calibration would replace");
  }
  return absl::OkStatus();
}

absl::Status CheckContexts(const CalibrateOptions& options, const ModelSpec& spec,
                           int64_t trained) {
  if (trained < 2 || trained > spec.max_context) {
    return InvalidArgument("trained-context: ", trained, "; from 2 to what the model says, ",
                           spec.max_context);
  }
  if (options.to_context <= trained) {
    return InvalidArgument("to-context: ", options.to_context, "; above the trained context, ",
                           trained);
  }
  if (options.to_context <= spec.max_context) return absl::OkStatus();
  ModelSpec extended = spec;  // the daemon's own limit
  const absl::Status status =
      engine::ApplyPolicySidecar(Json{{"context", options.to_context}}.dump(), &extended);
  return status.ok() ? status : engine::InFile("to-context", status);
}

// The file's first `tokens` tokens.
absl::StatusOr<std::vector<int32_t>> ReadTokens(const std::string& path, int64_t tokens,
                                                const engine::OpenedModel& model) {
  std::string text = ReadFile(path);
  const auto most = static_cast<size_t>(tokens * kMaxBytesPerToken);
  if (text.size() > most) {
    size_t end = most;
    while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;  // whole characters
    text.resize(end);
  }
  auto ids = model.tokenizer->Encode(text, {});
  if (!ids.ok()) return engine::InFile(path, ids.status());
  if (static_cast<int64_t>(ids->size()) < tokens) {
    return InvalidArgument(path, ": it has ", ids->size(), " tokens; to-context ", tokens,
                           " needs as many");
  }
  return std::vector<int32_t>(ids->begin(), ids->begin() + tokens);
}

std::vector<double> Frequencies(const ModelSpec& spec) {
  std::vector<double> result;
  for (const LayerSpec& layer : spec.layers) {
    if (layer.window > 0 || layer.rope == LayerSpec::kNoRope) continue;
    const engine::RopeSpec& rope = spec.ropes[static_cast<size_t>(layer.rope)];
    for (int i = 0; i < rope.rotary_dim / 2; ++i) {
      const double factor = rope.factors.empty() ? 1 : rope.factors[static_cast<size_t>(i)];
      result.push_back(std::pow(double{rope.theta}, -2.0 * i / rope.rotary_dim) / factor);
    }
    break;
  }
  return result;
}

// Bytes that programs can still have; 0: unknown.
int64_t AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  int64_t kib = 0;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return 0;
}

absl::StatusOr<int64_t> KvMemory(const ModelSpec& spec, int64_t context) {
  const int64_t blocks = (context + kBlockTokens - 1) / kBlockTokens + 1;
  const int64_t bytes = 2 * blocks * kBlockTokens * spec.num_layers * spec.num_kv_heads *
                        spec.head_dim *
                        static_cast<int64_t>(kernels::SizeOf(kernels::DType::kBFloat16));
  const int64_t available = AvailableMemory();
  if (available > 0 && bytes > available) {
    return InvalidArgument("to-context: ", context, " tokens need ", bytes, " bytes of KV cache; ",
                           available, " bytes of memory are available");
  }
  return bytes;
}

}  // namespace

absl::StatusOr<CalibrationInputs> OpenCalibrationInputs(const CalibrateOptions& options) {
  CalibrationInputs inputs;
  ACUITY_ASSIGN_OR_RETURN(inputs.daemon, FindDaemon(options.daemon));
  ACUITY_ASSIGN_OR_RETURN(const engine::OpenedModel model, OpenToInspect(options.model, ""));
  const ModelSpec& spec = model.spec;
  ACUITY_RETURN_IF_ERROR(CheckModel(spec, options.model));
  inputs.trained_context =
      options.trained_context == 0 ? spec.max_context : options.trained_context;
  ACUITY_RETURN_IF_ERROR(CheckContexts(options, spec, inputs.trained_context));
  ACUITY_ASSIGN_OR_RETURN(inputs.buckets,
                          ChooseBuckets(inputs.trained_context, options.to_context));
  inputs.context = std::max<int64_t>(options.to_context, spec.max_context);
  inputs.frequencies = Frequencies(spec);
  ACUITY_ASSIGN_OR_RETURN(const int64_t kv_bytes, KvMemory(spec, options.to_context));
  for (const auto& [paths, texts] :
       {std::pair{&options.texts, &inputs.texts}, std::pair{&options.held_out, &inputs.held_out}}) {
    for (const std::string& path : *paths) {
      ACUITY_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                              ReadTokens(path, options.to_context, model));
      texts->push_back(std::move(tokens));
    }
  }
  for (const std::string* path : {&options.out, &options.report}) {
    if (!path->empty() && !std::ofstream(*path, std::ios::app)) {
      return InvalidArgument("cannot write ", *path);
    }
  }
  inputs.daemon_arguments = {
      "--model",       Concat("model=", options.model), "--drain-seconds", "0",
      "--max-context", Concat(options.to_context),      "--kv-memory",     Concat(kv_bytes),
      "--threads",     Concat(options.threads)};
  return inputs;
}

}  // namespace acuity::client
