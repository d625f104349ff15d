#include "server/grpc/score_call.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/grpc/convert.h"
#include "server/grpc/status.h"

namespace acuity::server {

ScoreCall* ScoreCall::Start(grpc::CallbackServerContext* context, const ModelTable& models,
                            const v1::ScoreRequest& proto, v1::ScoreResponse* response) {
  std::shared_ptr<ScoreCall> call(new ScoreCall);
  call->self_ = call;
  call->response_ = response;
  call->Begin(context, models, proto);
  return call.get();
}

void ScoreCall::Begin(grpc::CallbackServerContext* context, const ModelTable& models,
                      const v1::ScoreRequest& proto) {
  const absl::Time arrival = absl::Now();
  const auto model = models.Find(proto.model());
  if (!model.ok()) {
    Finish(ToGrpcStatus(model.status()));
    return;
  }
  absl::StatusOr<engine::Request> request = ToRequest(proto, *(*model)->engine, *context, arrival);
  if (!request.ok()) {
    (*model)->observer->OnRejected("invalid");
    Finish(ToGrpcStatus(request.status()));
    return;
  }
  request_ = std::make_shared<const engine::Request>(*std::move(request));
  engine_ = (*model)->engine.get();
  const absl::Status submitted = engine_->Submit(request_, self_);
  if (!submitted.ok()) Finish(ToGrpcStatus(submitted));
}

void ScoreCall::OnResult(engine::RequestResult result) {
  if (result.status.ok()) *response_ = ToScoreResponse(result);
  Finish(ToGrpcStatus(result.status));
}

void ScoreCall::OnCancel() {
  if (request_ != nullptr) engine_->Cancel(request_->id);
}

void ScoreCall::OnDone() { std::exchange(self_, nullptr).reset(); }

}  // namespace acuity::server
