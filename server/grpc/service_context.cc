#include "server/grpc/service_context.h"

#include "absl/strings/str_cat.h"

namespace acuity::server {
namespace {

constexpr size_t kMaxHeaderBytes = 8 << 10;

absl::Status CheckHeaders(const grpc::ServerContextBase& call) {
  constexpr size_t kEntryBytes = 32;
  size_t bytes = 0;
  for (const auto& [name, value] : call.client_metadata()) {
    bytes += name.size() + value.size() + kEntryBytes;
  }
  if (bytes <= kMaxHeaderBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("headers: ", bytes, " bytes; the limit is ", kMaxHeaderBytes));
}

}  // namespace

absl::StatusOr<std::string> AcceptCaller(const grpc::ServerContextBase& call,
                                         const Authenticator& auth) {
  const absl::Status headers = CheckHeaders(call);
  if (!headers.ok()) return headers;
  if (!auth.required()) return std::string();
  const auto [begin, end] = call.client_metadata().equal_range("authorization");
  if (begin != end && std::next(begin) == end) {
    const auto tenant = auth.TenantOf({begin->second.data(), begin->second.size()});
    if (tenant.has_value()) return *tenant;
  }
  auth.CountRefusal();
  return absl::UnauthenticatedError("a valid bearer token is required");
}

}  // namespace acuity::server
