// The listening gRPC server: limits, health, reflection.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/grpc/credentials.h"
#include "server/grpc/service_context.h"

namespace acuity::server {

struct GrpcServerOptions {
  std::string address;            // HOST:PORT (port 0: any) or unix:PATH
  bool reflection = true;         // with tokens: for those who have one
  TlsCredentials* tls = nullptr;  // outlives the server; null: plaintext
};

class GrpcServer {
 public:
  // Listens on options.address. Health is SERVING for "" and each service at once. Unavailable if
  // the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const ServiceContext& services);
  virtual ~GrpcServer() = default;

  virtual std::string address() const = 0;  // with the port that was bound
  // NOT_SERVING for health checks and watches, or SERVING again.
  virtual void SetServing(bool serving) = 0;
  // No new connections; calls still running at `deadline` are cancelled.
  virtual void Shutdown(absl::Time deadline) = 0;
};

}  // namespace acuity::server
