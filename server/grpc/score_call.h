// One Score call: a unary answer once the engine has scored the prompt.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "acuity/v1/acuity.grpc.pb.h"
#include "server/grpc/admission.h"

namespace acuity::server {

// Lives until both gRPC and the engine are done with it.
class ScoreCall final : public grpc::ServerUnaryReactor, public engine::EventSink {
 public:
  // Validates, tokenises and submits. The returned reactor is owned by gRPC, which owns `response`
  // too.
  static ScoreCall* Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                          const v1::ScoreRequest& proto, v1::ScoreResponse* response);

  bool OnToken(engine::TokenEvent) override { return true; }
  void OnResult(engine::RequestResult result) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  ScoreCall() = default;
  void FinishWith(const absl::Status& status);

  std::shared_ptr<ScoreCall> self_;  // until gRPC's OnDone
  v1::ScoreResponse* response_ = nullptr;
  Admission admission_;
};

}  // namespace acuity::server
