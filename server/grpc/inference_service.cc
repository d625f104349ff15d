#include "server/grpc/inference_service.h"

#include "server/grpc/finish_now.h"
#include "server/grpc/infer_call.h"
#include "server/grpc/infer_convert.h"

namespace acuity::server {

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
    response->set_ready(serving_ && services_.models->Find(request->name()).ok() &&
                        CheckVersion(request->version()).ok());
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
    const auto model = services_.models->Find(request->name());
    if (!model.ok()) return model.status();
    const absl::Status version = CheckVersion(request->version());
    if (version.ok()) FillMetadata(*(*model)->engine, response);
    return version;
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

}  // namespace acuity::server
