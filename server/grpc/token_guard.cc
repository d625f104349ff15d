#include "server/grpc/token_guard.h"

#include <grpc/grpc.h>

#include <string>

#include "absl/strings/match.h"
#include "server/grpc/service_context.h"

namespace acuity::server {
namespace {

// Health needs no token; our handlers ask for it themselves, because they need the tenant.
constexpr const char* kOpen[] = {"/grpc.health.v1.Health/", "/acuity.v1.Acuity/",
                                 "/inference.GRPCInferenceService/"};

class Refusal final : public grpc::experimental::Interceptor {
 public:
  Refusal(grpc::experimental::ServerRpcInfo* info, const Authenticator* auth)
      : info_(info), auth_(*auth) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      grpc::ServerContextBase* call = info_->server_context();
      const auto tenant = AcceptCaller(*call, auth_);
      if (!tenant.ok()) {
        // Ends the call with this status; the handler finds its stream closed.
        grpc_call_cancel_with_status(call->c_call(),
                                     static_cast<grpc_status_code>(tenant.status().code()),
                                     std::string(tenant.status().message()).c_str(), nullptr);
      }
    }
    methods->Proceed();
  }

 private:
  grpc::experimental::ServerRpcInfo* info_;
  const Authenticator& auth_;
};

}  // namespace

grpc::experimental::Interceptor* TokenGuard::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  for (const char* open : kOpen) {
    if (absl::StartsWith(info->method(), open)) return nullptr;
  }
  return new Refusal(info, &auth_);
}

}  // namespace acuity::server
