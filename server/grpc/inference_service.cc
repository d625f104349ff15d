#include "server/grpc/inference_service.h"

#include "server/grpc/finish_now.h"
#include "server/grpc/infer_call.h"
#include "server/grpc/infer_convert.h"

namespace acuity::server {

absl::StatusOr<const ServedModel*> InferenceService::Find(const std::string& name,
                                                          const std::string& version) const {
  const auto model = services_.models->Find(name);
  if (!model.ok()) return model.status();
  const absl::Status known = CheckVersion(version);
  if (!known.ok()) return known;
  return model;
}

grpc::ServerUnaryReactor* InferenceService::ServerLive(grpc::CallbackServerContext* context,
                                                       const inference::ServerLiveRequest*,
                                                       inference::ServerLiveResponse* response) {
  return FinishNow(context, services_, [&] {
    response->set_live(true);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ServerReady(grpc::CallbackServerContext* context,
                                                        const inference::ServerReadyRequest*,
                                                        inference::ServerReadyResponse* response) {
  return FinishNow(context, services_, [&] {
    response->set_ready(serving_);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelReady(grpc::CallbackServerContext* context,
                                                       const inference::ModelReadyRequest* request,
                                                       inference::ModelReadyResponse* response) {
  return FinishNow(context, services_, [&] {
    response->set_ready(serving_ && Find(request->name(), request->version()).ok());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ServerMetadata(
    grpc::CallbackServerContext* context, const inference::ServerMetadataRequest*,
    inference::ServerMetadataResponse* response) {
  return FinishNow(context, services_, [&] {
    response->set_name("acuity");
    response->set_version(ACUITY_VERSION);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelMetadata(
    grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  return FinishNow(context, services_, [&] {
    const auto model = Find(request->name(), request->version());
    if (model.ok()) FillMetadata(*(*model)->engine, response);
    return model.status();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelInfer(grpc::CallbackServerContext* context,
                                                       const inference::ModelInferRequest* request,
                                                       inference::ModelInferResponse* response) {
  return InferCall::Start(context, services_, *request, response);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
InferenceService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return InferStreamCall::Start(context, services_);
}

grpc::ServerUnaryReactor* InferenceService::ModelConfig(
    grpc::CallbackServerContext* context, const inference::ModelConfigRequest* request,
    inference::ModelConfigResponse* response) {
  return FinishNow(context, services_, [&] {
    const auto model = Find(request->name(), request->version());
    if (model.ok()) FillConfig(*(*model)->engine, response->mutable_config());
    return model.status();
  });
}

grpc::ServerUnaryReactor* InferenceService::ModelStatistics(
    grpc::CallbackServerContext* context, const inference::ModelStatisticsRequest* request,
    inference::ModelStatisticsResponse* response) {
  return FinishNow(context, services_, [&] {
    if (request->name().empty()) {
      for (const auto& [name, model] : services_.models->all()) {
        FillStatistics(name, model.observer->totals(), response->add_model_stats());
      }
      return CheckVersion(request->version());
    }
    const auto model = Find(request->name(), request->version());
    if (model.ok()) {
      FillStatistics(request->name(), (*model)->observer->totals(), response->add_model_stats());
    }
    return model.status();
  });
}

}  // namespace acuity::server
