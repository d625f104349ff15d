// ModelInfer and ModelStreamInfer of the Open Inference Protocol: one request and its answer, and
// many of them at a time on one stream.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>

#include "inference/grpc_service.grpc.pb.h"
#include "server/grpc/answering_call.h"
#include "server/grpc/infer_convert.h"

namespace acuity::server {

class InferCall final : public grpc::ServerUnaryReactor, public AnsweringCall {
 public:
  // gRPC owns the returned reactor, and `response`.
  static InferCall* Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                          const inference::ModelInferRequest& proto,
                          inference::ModelInferResponse* response);

  // grpc::ServerUnaryReactor
  void OnCancel() override { OnCancelled(); }
  void OnDone() override { OnGone(); }

 private:
  InferCall(grpc::CallbackServerContext* context, inference::ModelInferResponse* response)
      : AnsweringCall(context), response_(response) {}
  bool Send(Answer& answer, v1::GenerateResponse gathered) override;
  void FinishCall(const grpc::Status& status) override { Finish(status); }

  inference::ModelInferResponse* const response_;
};

// Requests are read for as long as fewer than 100 wait for their answers' ends; the sender feels it
// beyond. The stream ends when the sender has closed its half and everything is answered.
class InferStreamCall final : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                                             inference::ModelStreamInferResponse>,
                              public AnsweringCall {
 public:
  // `services` is copied. The returned reactor is owned by gRPC.
  static InferStreamCall* Start(grpc::CallbackServerContext* context,
                                const ServiceContext& services);

  // grpc::ServerBidiReactor
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override { OnWritten(ok); }
  void OnCancel() override { OnCancelled(); }
  void OnDone() override { OnGone(); }

 private:
  InferStreamCall(grpc::CallbackServerContext* context, const ServiceContext& services)
      : AnsweringCall(context), call_context_(context), services_(services) {}
  bool Send(Answer& answer, v1::GenerateResponse gathered) override;
  void OnAnswered() override { ReadNext(); }
  void FinishCall(const grpc::Status& status) override { Finish(status); }
  void ReadNext();

  grpc::CallbackServerContext* const call_context_;
  const ServiceContext services_;
  std::mutex read_mutex_;  // taken before the base's
  bool reading_ = true;    // or done with it
  inference::ModelInferRequest read_;
  inference::ModelStreamInferResponse writing_;
};

}  // namespace acuity::server
