// A unary call that is answered at once.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "server/grpc/service_context.h"
#include "server/grpc/status.h"

namespace acuity::server {

// Finishes with what `answer` returns, an absl::Status, of an accepted caller's request.
template <typename Answer>
grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const ServiceContext& services, Answer answer) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<std::string> tenant = AcceptCaller(*context, *services.auth);
  reactor->Finish(ToGrpcStatus(tenant.ok() ? answer() : tenant.status()));
  return reactor;
}

}  // namespace acuity::server
