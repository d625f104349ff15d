// One Embed call: a unary answer once the engine has embedded every prompt, each of which is a
// request of its own to it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <vector>

#include "acuity/v1/acuity.grpc.pb.h"
#include "server/grpc/admission.h"

namespace acuity::server {

// Lives until both gRPC and the engine are done with it.
class EmbedCall final : public grpc::ServerUnaryReactor {
 public:
  // Validates and tokenises all prompts, then submits them; if one is refused, those before it are
  // cancelled and the call ends with its error. The returned reactor is owned by gRPC, which owns
  // `response` too.
  static EmbedCall* Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                          const v1::EmbedRequest& proto, v1::EmbedResponse* response);

  void OnCancel() override;
  void OnDone() override;

 private:
  // What the engine tells of one prompt.
  class Part final : public engine::EventSink {
   public:
    Part(std::shared_ptr<EmbedCall> call, int index) : call_(std::move(call)), index_(index) {}
    bool OnToken(engine::TokenEvent) override { return true; }
    void OnResult(engine::RequestResult result) override { call_->OnPrompt(index_, result); }

   private:
    const std::shared_ptr<EmbedCall> call_;
    const int index_;
  };

  EmbedCall() = default;
  absl::Status AdmitAll(const grpc::CallbackServerContext& context, const ServiceContext& services,
                        const v1::EmbedRequest& proto);
  absl::Status SubmitAll(const grpc::CallbackServerContext& context, size_t* submitted);
  void OnPrompt(int index, const engine::RequestResult& result);
  // One of `unfinished_` ended, with `status`. The last one answers the call with the first error.
  void EndOne(const absl::Status& status);

  std::shared_ptr<EmbedCall> self_;  // until gRPC's OnDone
  v1::EmbedResponse* response_ = nullptr;
  bool normalize_ = false;
  std::vector<Admission> admissions_;  // [prompts], filled before Start returns
  std::mutex mutex_;
  int unfinished_ = 1;   // guarded by mutex_: prompts in the engine's hands, and Start
  absl::Status status_;  // guarded by mutex_
};

}  // namespace acuity::server
