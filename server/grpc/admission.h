// What every call that runs a request does first: find the model, validate, tokenise, submit.
#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "server/grpc/convert.h"
#include "server/grpc/model_table.h"

namespace acuity::server {

// A request in its engine's hands. Empty until admitted.
struct Admission {
  std::shared_ptr<const engine::Request> request;
  engine::Engine* engine = nullptr;  // outlives the call

  void Cancel() const {
    if (request != nullptr) engine->Cancel(request->id);
  }
};

// Fills *admission before the first event can reach `sink`. On an error `sink` is never called.
template <typename Proto>
absl::Status Admit(const grpc::CallbackServerContext& context, const ModelTable& models,
                   const Proto& proto, std::shared_ptr<engine::EventSink> sink,
                   Admission* admission) {
  const absl::Time arrival = absl::Now();
  const auto model = models.Find(proto.model());
  if (!model.ok()) return model.status();
  engine::Engine* engine = (*model)->engine.get();
  absl::StatusOr<engine::Request> request = ToRequest(proto, *engine, context, arrival);
  if (!request.ok()) {
    (*model)->observer->OnRejected("invalid");
    return request.status();
  }
  *admission = {std::make_shared<const engine::Request>(*std::move(request)), engine};
  const absl::Status submitted = engine->Submit(admission->request, std::move(sink));
  // The caller may have gone before there was anything to cancel.
  if (submitted.ok() && context.IsCancelled()) admission->Cancel();
  return submitted;
}

}  // namespace acuity::server
