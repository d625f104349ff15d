#include "server/grpc/score_call.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/grpc/convert.h"
#include "server/grpc/status.h"

namespace acuity::server {

ScoreCall* ScoreCall::Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                            const v1::ScoreRequest& proto, v1::ScoreResponse* response) {
  std::shared_ptr<ScoreCall> call(new ScoreCall);
  call->self_ = call;
  call->response_ = response;
  const absl::Status admitted = Admit(*context, services, proto, call, &call->admission_);
  if (!admitted.ok()) call->Finish(ToGrpcStatus(admitted));
  return call.get();
}

void ScoreCall::OnResult(engine::RequestResult result) {
  admission_.lease.Release();
  if (result.status.ok()) *response_ = ToScoreResponse(result);
  Finish(ToGrpcStatus(result.status));
}

void ScoreCall::OnCancel() { admission_.Cancel(); }

void ScoreCall::OnDone() { std::exchange(self_, nullptr).reset(); }

}  // namespace acuity::server
