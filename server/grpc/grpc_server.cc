#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/grpc/inference_service.h"
#include "server/grpc/service.h"
#include "server/grpc/token_guard.h"

namespace acuity::server {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
// Beyond this gRPC 1.51 ends the connection, and every call on it, not just the one: far above what
// one caller may send and the others should not suffer for (AcceptCaller refuses those).
constexpr int kMaxMetadataBytes = 1 << 20;
constexpr int kMaxStreamsPerConnection = 100;
constexpr int kMinPingIntervalMs = 10'000;   // clients that ping more often are disconnected
constexpr int kKeepaliveTimeMs = 60'000;     // a client that is silent for so long is pinged, and
constexpr int kKeepaliveTimeoutMs = 20'000;  // dropped without an answer in this time
constexpr int kMaxIdleMs = 600'000;          // connections without a call are closed after this
// The number of connections has no limit here; deploy/haproxy gives it one (docs/api.md, limits).

// Linking the reflection library is enough to have reflection: it registers its plugin by itself.
// This takes it out.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& p) { return p->name() == "proto_server_reflection"; });
  }
};

void SetLimits(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kMaxIdleMs);
  // A second daemon must not share the port.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

class GrpcServerImpl : public GrpcServer {
 public:
  explicit GrpcServerImpl(const ServiceContext& services)
      : auth_(services.auth), service_(services), inference_service_(services, &serving_) {}

  absl::Status Listen(const GrpcServerOptions& options) {
    const std::string& address = options.address;
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    SetLimits(&builder);
    int port = 0;
    builder.AddListeningPort(address,
                             options.tls == nullptr ? grpc::InsecureServerCredentials()
                                                    : options.tls->MakeServerCredentials(),
                             &port);
    if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
    if (auth_->required()) {
      std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> guards;
      guards.push_back(std::make_unique<TokenGuard>(auth_));
      builder.experimental().SetInterceptorCreators(std::move(guards));
    }
    builder.RegisterService(&service_);
    builder.RegisterService(&inference_service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      return absl::UnavailableError(absl::StrCat("--listen: cannot bind ", address,
                                                 ": in use, not permitted or not an address"));
    }
    address_ = address;
    const size_t colon = address.rfind(':');
    if (!absl::StartsWith(address, "unix:") && colon != std::string::npos) {
      address_ = absl::StrCat(address.substr(0, colon), ":", port);
    }
    SetServing(true);
    return absl::OkStatus();
  }

  std::string address() const override { return address_; }

  void SetServing(bool serving) override {
    serving_ = serving;
    grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
    health->SetServingStatus(serving);  // every service, "" included
    health->SetServingStatus(v1::Acuity::service_full_name(), serving);
    health->SetServingStatus(inference::GRPCInferenceService::service_full_name(), serving);
  }

  void Shutdown(absl::Time deadline) override { server_->Shutdown(absl::ToChronoTime(deadline)); }

 private:
  const Authenticator* auth_;
  std::atomic<bool> serving_{false};
  AcuityService service_;
  InferenceService inference_service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// A socket file that a killed daemon left behind would block the bind; one that somebody answers on
// is in use.
absl::Status ClearStaleSocket(const std::string& address) {
  const std::string path = address.substr(std::strlen("unix:"));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof name.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("--listen: the socket path has ", path.size(),
                                                   " bytes, allowed are 1 to ",
                                                   sizeof name.sun_path - 1));
  }
  std::memcpy(name.sun_path, path.c_str(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int connected = connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name);
  const bool stale = connected != 0 && errno == ECONNREFUSED;
  close(fd);
  if (connected == 0) {
    return absl::UnavailableError(absl::StrCat("--listen: ", address, " is in use"));
  }
  if (stale) unlink(path.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const ServiceContext& services) {
  if (absl::StartsWith(options.address, "unix:")) {
    const absl::Status cleared = ClearStaleSocket(options.address);
    if (!cleared.ok()) return cleared;
  }
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto server = std::make_unique<GrpcServerImpl>(services);
  const absl::Status listening = server->Listen(options);
  if (!listening.ok()) return listening;
  return server;
}

}  // namespace acuity::server
