// What every call that runs a request does first: authenticate, find the model, validate, tokenise,
// hold against the tenant's limits; then submit.
#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/grpc/service_context.h"

namespace acuity::server {

// A request that its engine may have. Empty until admitted.
struct Admission {
  std::shared_ptr<const engine::Request> request;
  engine::Engine* engine = nullptr;  // outlives the call
  TenantLedger::Lease lease;         // to be released with the request's result

  // Once. On an error `sink` is never called.
  absl::Status Submit(const grpc::CallbackServerContext& call,
                      std::shared_ptr<engine::EventSink> sink) const;
  // Of what was submitted; else nothing happens.
  void Cancel() const;
};

// Makes the request of `tenant`, "" if callers are not authenticated, that came in at `arrival`.
using MakeRequest = absl::FunctionRef<absl::StatusOr<engine::Request>(
    const engine::Engine& engine, const std::string& tenant, absl::Time arrival)>;

// `make` is called for authenticated callers and known models only.
absl::StatusOr<Admission> Admit(const grpc::CallbackServerContext& call,
                                const ServiceContext& services, const std::string& model,
                                MakeRequest make);

}  // namespace acuity::server
