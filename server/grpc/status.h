// absl::Status -> grpc::Status with google.rpc details.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace acuity::server {

// The code and message stay. Details: ErrorInfo always (domain "acuity"); BadRequest for
// InvalidArgument, whose message has the form "FIELD: what is wrong"; RetryInfo and QuotaFailure
// for ResourceExhausted, whose message has the form "SUBJECT: what is full"; RetryInfo for
// Unavailable.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace acuity::server
