// What every service of the daemon works with, and the first thing that every call does.
#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/grpc/auth.h"
#include "server/grpc/model_table.h"
#include "server/grpc/tenant_ledger.h"

namespace acuity::server {

// Not owned; all outlive the server.
struct ServiceContext {
  const ModelTable* models = nullptr;
  const Authenticator* auth = nullptr;
  TenantLedger* tenants = nullptr;
};

// The caller's tenant, "" if tokens are not required. InvalidArgument for headers of over 8 KiB,
// counted as HTTP/2 does (RFC 7540, 6.5.2) but without those of gRPC's own. Unauthenticated, which
// says nothing about tokens that would do and is counted, without exactly one
// `authorization: Bearer TOKEN` that is known.
absl::StatusOr<std::string> AcceptCaller(const grpc::ServerContextBase& call,
                                         const Authenticator& auth);

}  // namespace acuity::server
