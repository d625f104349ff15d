#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <thread>

#include "clients/cpp/commands.h"
#include "clients/cpp/connection.h"
#include "clients/cpp/heat_map.h"
#include "clients/cpp/json.h"

namespace acuity::client {
namespace {

std::string Bar(double share) {
  const size_t filled = static_cast<size_t>(share * 20 + 0.5);
  return std::string(std::min<size_t>(filled, 20), '#') +
         std::string(20 - std::min<size_t>(filled, 20), '.');
}

void Show(const v1::Model& model, const v1::ModelStatus& before, double seconds, bool colour) {
  const v1::ModelStatus& now = model.status();
  const double kv =
      model.num_blocks() == 0 ? 0 : static_cast<double>(now.held_blocks()) / model.num_blocks();
  std::printf("%s  %s, KV %s, %s, attention %s\n", model.name().c_str(), model.dtype().c_str(),
              model.kv_dtype().c_str(), model.cpu_isa().c_str(), model.attention_policy().c_str());
  std::printf("  running %3d   waiting %3d   KV [%s] %5.1f %%\n", now.running(), now.waiting(),
              Bar(kv).c_str(), kv * 100);
  std::printf("  computed %8.1f tokens/s   generated %7.1f tokens/s   in all %lld\n",
              static_cast<double>(now.computed_tokens() - before.computed_tokens()) / seconds,
              static_cast<double>(now.generated_tokens() - before.generated_tokens()) / seconds,
              static_cast<long long>(now.generated_tokens()));
  const std::string map = DrawHeatMap(now.last_attention(), "  last long prompt", colour);
  std::printf("%s\n", map.empty() ? "  (no long prompt was measured yet)\n" : map.c_str());
}

}  // namespace

int Top(const CommonOptions& common, double interval_seconds, int iterations) {
  const Connection connection = Connect(common);
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  std::map<std::string, v1::ModelStatus> before;
  auto last = std::chrono::steady_clock::now();
  for (int i = 0; iterations == 0 || i < iterations; ++i) {
    if (i > 0) std::this_thread::sleep_for(std::chrono::duration<double>(interval_seconds));
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    const grpc::Status status = connection.stub->ListModels(&context, {}, &response);
    if (!status.ok()) return Complain(status, common.server);
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::max(1e-3, std::chrono::duration<double>(now - last).count());
    last = now;
    if (terminal && !common.json) std::printf("\033[H\033[2J");
    Json models = Json::array();
    for (const v1::Model& model : response.models()) {
      const auto [it, first] = before.try_emplace(model.name(), model.status());
      if (common.json) {
        models.push_back(ToJson(model));
      } else {
        Show(model, it->second, seconds, terminal);
      }
      it->second = model.status();
    }
    if (common.json) Print({{"models", models}});
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace acuity::client
