// The listening gRPC server: limits, health, reflection.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/grpc/model_table.h"

namespace acuity::server {

class GrpcServer {
 public:
  // Listens on HOST:PORT (port 0: any) or unix:PATH. Health is SERVING for "" and
  // "acuity.v1.Acuity" at once. Unavailable if the address cannot be bound. `models` outlives the
  // server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const std::string& address,
                                                           bool reflection,
                                                           const ModelTable* models);
  virtual ~GrpcServer() = default;

  virtual std::string address() const = 0;  // with the port that was bound
  // NOT_SERVING for health checks and watches, or SERVING again.
  virtual void SetServing(bool serving) = 0;
  // No new connections; calls still running at `deadline` are cancelled.
  virtual void Shutdown(absl::Time deadline) = 0;
};

}  // namespace acuity::server
