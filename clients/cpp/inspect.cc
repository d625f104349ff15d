// The commands that ask the daemon about itself.
#include <cstdio>
#include <iostream>

#include "clients/cpp/commands.h"
#include "clients/cpp/connection.h"
#include "clients/cpp/json.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace acuity::client {

int Tokenize(const CommonOptions& common, const PromptOptions& prompt) {
  v1::TokenizeRequest request;
  if (!FillPrompt(common, prompt, request.mutable_model(), request.mutable_prompt())) return 1;
  const Connection connection = Connect(common);
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  const grpc::Status status = connection.stub->Tokenize(&context, request, &response);
  if (!status.ok()) return Complain(status, common.server);
  if (common.json) {
    Print({{"token_ids",
            std::vector<int>(response.token_ids().begin(), response.token_ids().end())}});
    return 0;
  }
  for (int i = 0; i < response.token_ids_size(); ++i) {
    std::cout << response.token_ids(i) << "\t"
              << Json(response.tokens(i)).dump(-1, ' ', false, Json::error_handler_t::replace)
              << "\n";
  }
  return 0;
}

int Models(const CommonOptions& common) {
  const Connection connection = Connect(common);
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  const grpc::Status status = connection.stub->ListModels(&context, {}, &response);
  if (!status.ok()) return Complain(status, common.server);
  if (common.json) {
    Json models = Json::array();
    for (const v1::Model& model : response.models()) models.push_back(ToJson(model));
    Print({{"models", models}});
    return 0;
  }
  for (const v1::Model& m : response.models()) {
    std::printf("%s: %s (%s), %.1f M parameters, %d layers, %d heads, context %d\n",
                m.name().c_str(), m.display_name().c_str(), m.architecture().c_str(),
                static_cast<double>(m.parameters()) / 1e6, m.num_layers(), m.num_heads(),
                m.max_context());
    std::printf(
        "  stored as %s, served in %s on %s; attention %s; weights %.0f MB, KV %.0f MB "
        "of %s\n",
        m.stored_type().c_str(), m.dtype().c_str(), m.cpu_isa().c_str(),
        m.attention_policy().c_str(), static_cast<double>(m.weight_bytes()) / 1e6,
        static_cast<double>(m.kv_bytes()) / 1e6, m.kv_dtype().c_str());
  }
  return 0;
}

int Health(const CommonOptions& common) {
  const Connection connection = Connect(common);
  const auto stub = grpc::health::v1::Health::NewStub(connection.channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, {}, &response);
  if (!status.ok()) return Complain(status, common.server);
  const std::string name =
      grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status());
  if (common.json) {
    Print({{"status", name}});
  } else {
    std::cout << name << "\n";
  }
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING ? 0 : 1;
}

}  // namespace acuity::client
