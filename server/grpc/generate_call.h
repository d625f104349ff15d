// One Generate call: from the engine's events to the client's stream.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>

#include "absl/time/time.h"
#include "acuity/v1/acuity.grpc.pb.h"
#include "server/grpc/admission.h"

namespace acuity::server {

// Lives until both gRPC and the engine are done with it. Events arrive on the engine thread,
// completions on gRPC's. At most one write is under way; what comes meanwhile is gathered, up to a
// limit beyond which the call is cancelled.
class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public engine::EventSink {
 public:
  // Validates, tokenises and submits. The returned reactor is owned by gRPC.
  static GenerateCall* Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                             const v1::GenerateRequest& proto);

  // engine::EventSink
  bool OnToken(engine::TokenEvent event) override;
  void OnResult(engine::RequestResult result) override;

  // grpc::ServerWriteReactor
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateCall() = default;
  void WriteOrFinish();  // REQUIRES mutex_ held

  std::shared_ptr<GenerateCall> self_;  // until gRPC's OnDone
  grpc::CallbackServerContext* context_ = nullptr;
  Admission admission_;

  std::mutex mutex_;
  v1::GenerateResponse writing_, gathered_;
  size_t gathered_bytes_ = 0;
  bool write_under_way_ = false;
  absl::Time write_started_;
  bool have_result_ = false;
  bool finished_ = false;
  bool dead_ = false;  // gRPC is done with the call
  grpc::Status status_;
};

}  // namespace acuity::server
