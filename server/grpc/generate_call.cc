#include "server/grpc/generate_call.h"

#include <memory>
#include <utility>

#include "server/grpc/convert.h"

namespace acuity::server {

GenerateCall* GenerateCall::Start(grpc::CallbackServerContext* context,
                                  const ServiceContext& services,
                                  const v1::GenerateRequest& proto) {
  const std::shared_ptr<GenerateCall> call(new GenerateCall(context));
  call->Open();
  call->Run(std::make_shared<Answer>(), services, proto.model(),
            [&](const engine::Engine& engine, const std::string& tenant, absl::Time arrival) {
              return ToRequest(proto, engine, *context, tenant, arrival);
            });
  call->Close();
  return call.get();
}

bool GenerateCall::Send(Answer& answer, v1::GenerateResponse gathered) {
  if (answer.ended()) set_status(answer.status());
  if (gathered.deltas_size() > 0 || gathered.has_result()) {
    writing_ = std::move(gathered);
    NoteWrite();
    StartWrite(&writing_);
  }
  return answer.ended();
}

}  // namespace acuity::server
