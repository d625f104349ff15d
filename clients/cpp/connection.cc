#include "clients/cpp/connection.h"

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <utility>
#include <vector>

namespace acuity::client {
namespace {

const char* CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  return code >= 0 && code < 17 ? kNames[code] : "UNKNOWN";
}

// Adds the token to every call. An interceptor, since call credentials are not sent in plaintext,
// which a Unix socket or a tunnel may well be.
class Bearer final : public grpc::experimental::Interceptor {
 public:
  explicit Bearer(const std::string& value) : value_(value) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", value_);
    }
    methods->Proceed();
  }

 private:
  const std::string value_;
};

class BearerFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit BearerFactory(const std::string& token) : value_("Bearer " + token) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new Bearer(value_);
  }

 private:
  const std::string value_;
};

// Without the newline that files end with.
std::string Token(const CommonOptions& common) {
  const char* variable = std::getenv("ACUITY_TOKEN");
  std::string token = common.token_file.empty() ? (variable == nullptr ? "" : variable)
                                                : ReadFile(common.token_file);
  token.erase(token.find_last_not_of(" \t\r\n") + 1);
  return token;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const CommonOptions& common) {
  if (common.tls_ca.empty() && common.tls_cert.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  if (!common.tls_ca.empty()) options.pem_root_certs = ReadFile(common.tls_ca);
  if (!common.tls_cert.empty()) {
    options.pem_cert_chain = ReadFile(common.tls_cert);
    options.pem_private_key = ReadFile(common.tls_key);
  }
  return grpc::SslCredentials(options);
}

}  // namespace

Connection Connect(const CommonOptions& common) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  const std::string token = Token(common);
  if (!token.empty()) interceptors.push_back(std::make_unique<BearerFactory>(token));
  Connection connection;
  connection.channel = grpc::experimental::CreateCustomChannelWithInterceptors(
      common.server, Credentials(common), arguments, std::move(interceptors));
  connection.stub = v1::Acuity::NewStub(connection.channel);
  return connection;
}

void SetDeadline(grpc::ClientContext& context, const CommonOptions& common) {
  if (common.timeout_seconds <= 0) return;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(
                           std::chrono::duration<double>(common.timeout_seconds)));
}

std::string Describe(const grpc::Status& status, const std::string& server) {
  std::string text = CodeName(status.error_code()) + (": " + status.error_message());
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) text += " (server " + server + ")";
  return text;
}

int Complain(const grpc::Status& status, const std::string& server) {
  std::cerr << "acuity: " << Describe(status, server) << "\n";
  return 1;
}

std::string DefaultModel(const Connection& connection, const std::string& server) {
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  const grpc::Status status = connection.stub->ListModels(&context, {}, &response);
  if (!status.ok()) {
    Complain(status, server);
    return "";
  }
  if (response.models_size() == 0) {
    std::cerr << "acuity: the daemon serves no model\n";
    return "";
  }
  return response.models(0).name();
}

std::string ReadFile(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace acuity::client
