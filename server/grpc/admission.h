// What every call that runs a request does first: authenticate, find the model, validate, tokenise,
// hold against the tenant's limits, submit.
#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "server/grpc/convert.h"
#include "server/grpc/service_context.h"

namespace acuity::server {

// A request in its engine's hands. Empty until admitted.
struct Admission {
  std::shared_ptr<const engine::Request> request;
  engine::Engine* engine = nullptr;  // outlives the call
  TenantLedger::Lease lease;         // to be released with the request's result

  void Cancel() const {
    if (request != nullptr) engine->Cancel(request->id);
  }
};

// Fills *admission before the first event can reach `sink`. On an error `sink` is never called.
template <typename Proto>
absl::Status Admit(const grpc::CallbackServerContext& call, const ServiceContext& services,
                   const Proto& proto, std::shared_ptr<engine::EventSink> sink,
                   Admission* admission) {
  const absl::Time arrival = absl::Now();
  absl::StatusOr<std::string> tenant = Authenticate(call, *services.auth);
  if (!tenant.ok()) return tenant.status();
  const auto model = services.models->Find(proto.model());
  if (!model.ok()) return model.status();
  engine::Engine* engine = (*model)->engine.get();
  absl::StatusOr<engine::Request> request = ToRequest(proto, *engine, call, *tenant, arrival);
  if (!request.ok()) {
    (*model)->observer->OnRejected("invalid");
    return request.status();
  }
  absl::StatusOr<TenantLedger::Lease> lease =
      services.tenants->Take(*tenant, static_cast<int64_t>(request->prompt.size()));
  if (!lease.ok()) {
    (*model)->observer->OnRejected("tenant_limit");
    return lease.status();
  }
  *admission = {std::make_shared<const engine::Request>(*std::move(request)), engine,
                *std::move(lease)};
  const absl::Status submitted = engine->Submit(admission->request, std::move(sink));
  if (!submitted.ok()) admission->lease.Release();
  // The caller may have gone before there was anything to cancel.
  if (submitted.ok() && call.IsCancelled()) admission->Cancel();
  return submitted;
}

}  // namespace acuity::server
