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
  absl::StatusOr<Admission> admission =
      Admit(*context, services, proto.model(),
            [&](const engine::Engine& engine, const std::string& tenant, absl::Time arrival) {
              return ToRequest(proto, engine, *context, tenant, arrival);
            });
  absl::Status status = admission.status();
  if (status.ok()) {
    call->admission_ = *std::move(admission);
    status = call->admission_.Submit(*context, call);
  }
  if (!status.ok()) call->FinishWith(status);
  return call.get();
}

void ScoreCall::OnResult(engine::RequestResult result) {
  if (result.status.ok()) *response_ = ToScoreResponse(result);
  FinishWith(result.status);
}

void ScoreCall::FinishWith(const absl::Status& status) {
  admission_.lease.Release();
  Finish(ToGrpcStatus(status));
}

void ScoreCall::OnCancel() { admission_.Cancel(); }

void ScoreCall::OnDone() { std::exchange(self_, nullptr).reset(); }

}  // namespace acuity::server
