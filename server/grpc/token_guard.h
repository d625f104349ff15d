// Refuses calls of services that are not ours, such as reflection, as ours refuse them: without a
// token, with too large headers (AcceptCaller).
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include "server/grpc/auth.h"

namespace acuity::server {

// Our own services authenticate in their handlers, since they need the tenant, and health checks
// are open to all; every other method passes here, so what is added to the server is closed unless
// somebody opens it. `auth` outlives the server.
class TokenGuard final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit TokenGuard(const Authenticator* auth) : auth_(*auth) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  const Authenticator& auth_;
};

}  // namespace acuity::server
