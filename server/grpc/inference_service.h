// The Open Inference Protocol's service, for clients that speak it to other servers already.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/grpc/service_context.h"

namespace acuity::server {

// Thread-safe. Every method authenticates before it looks at the request.
class InferenceService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // `serving`: what health checks say. Not owned.
  InferenceService(const ServiceContext& services, const std::atomic<bool>* serving)
      : services_(services), serving_(*serving) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* context,
                                        const inference::ModelConfigRequest* request,
                                        inference::ModelConfigResponse* response) override;
  grpc::ServerUnaryReactor* ModelStatistics(grpc::CallbackServerContext* context,
                                            const inference::ModelStatisticsRequest* request,
                                            inference::ModelStatisticsResponse* response) override;

 private:
  // The model of that name and version, or NotFound.
  absl::StatusOr<const ServedModel*> Find(const std::string& name,
                                          const std::string& version) const;

  const ServiceContext services_;
  const std::atomic<bool>& serving_;
};

}  // namespace acuity::server
