#include "server/grpc/admission.h"

#include <utility>

#include "absl/time/clock.h"

namespace acuity::server {

absl::Status Admission::Submit(const grpc::CallbackServerContext& call,
                               std::shared_ptr<engine::EventSink> sink) const {
  const absl::Status submitted = engine->Submit(request, std::move(sink));
  // The caller may have gone before there was anything to cancel.
  if (submitted.ok() && call.IsCancelled()) Cancel();
  return submitted;
}

void Admission::Cancel() const {
  if (request != nullptr) engine->Cancel(request->id);
}

absl::StatusOr<Admission> Admit(const grpc::CallbackServerContext& call,
                                const ServiceContext& services, const std::string& model,
                                MakeRequest make) {
  const absl::Time arrival = absl::Now();
  absl::StatusOr<std::string> tenant = AcceptCaller(call, *services.auth);
  if (!tenant.ok()) return tenant.status();
  const auto served = services.models->Find(model);
  if (!served.ok()) return served.status();
  engine::Engine* engine = (*served)->engine.get();
  absl::StatusOr<engine::Request> request = make(*engine, *tenant, arrival);
  if (!request.ok()) {
    (*served)->observer->OnRejected("invalid");
    return request.status();
  }
  absl::StatusOr<TenantLedger::Lease> lease =
      services.tenants->Take(*tenant, static_cast<int64_t>(request->prompt.size()));
  if (!lease.ok()) {
    (*served)->observer->OnRejected("tenant_limit");
    return lease.status();
  }
  return Admission{std::make_shared<const engine::Request>(*std::move(request)), engine,
                   *std::move(lease)};
}

}  // namespace acuity::server
