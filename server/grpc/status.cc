#include "server/grpc/status.h"

#include <string>

#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"

namespace acuity::server {
namespace {

// A queue of the default size moves on within a second or so; a drain ends within its window.
constexpr int kRetrySeconds = 1;

const char* Reason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_FIELD";
    case absl::StatusCode::kNotFound:
      return "NOT_FOUND";
    case absl::StatusCode::kResourceExhausted:
      return absl::StartsWith(status.message(), "tenant ") ? "TENANT_LIMIT" : "QUEUE_FULL";
    case absl::StatusCode::kUnavailable:
      return "DRAINING";
    case absl::StatusCode::kDeadlineExceeded:
      return "DEADLINE";
    case absl::StatusCode::kCancelled:
      return "CANCELLED";
    case absl::StatusCode::kUnauthenticated:
      return "UNAUTHENTICATED";
    case absl::StatusCode::kPermissionDenied:
      return "OTHER_TENANT";
    case absl::StatusCode::kFailedPrecondition:
      return "NOT_SUPPORTED_BY_MODEL";
    default:
      return "INTERNAL";
  }
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message(status.message());
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);

  google::rpc::ErrorInfo info;
  info.set_reason(Reason(status));
  info.set_domain("acuity");
  details.add_details()->PackFrom(info);

  if (absl::IsInvalidArgument(status)) {
    const size_t colon = message.find(": ");
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(colon == std::string::npos ? "" : message.substr(0, colon));
    violation->set_description(colon == std::string::npos ? message : message.substr(colon + 2));
    details.add_details()->PackFrom(bad);
  }
  if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetrySeconds);
    details.add_details()->PackFrom(retry);
  }
  if (absl::IsResourceExhausted(status)) {
    google::rpc::QuotaFailure quota;
    auto* violation = quota.add_violations();
    violation->set_subject(message.substr(0, message.find(": ")));
    violation->set_description(message);
    details.add_details()->PackFrom(quota);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

}  // namespace acuity::server
