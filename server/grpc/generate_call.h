// One Generate call of acuity.v1.
#pragma once

#include <grpcpp/grpcpp.h>

#include "acuity/v1/acuity.grpc.pb.h"
#include "server/grpc/answering_call.h"

namespace acuity::server {

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public AnsweringCall {
 public:
  // Validates, tokenises and submits. The returned reactor is owned by gRPC.
  static GenerateCall* Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                             const v1::GenerateRequest& proto);

  // grpc::ServerWriteReactor
  void OnWriteDone(bool ok) override { OnWritten(ok); }
  void OnCancel() override { OnCancelled(); }
  void OnDone() override { OnGone(); }

 private:
  explicit GenerateCall(grpc::CallbackServerContext* context) : AnsweringCall(context) {}
  bool Send(Answer& answer, v1::GenerateResponse gathered) override;
  void FinishCall(const grpc::Status& status) override { Finish(status); }

  v1::GenerateResponse writing_;
};

}  // namespace acuity::server
