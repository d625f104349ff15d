#include "clients/cpp/connection.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

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

}  // namespace

Connection Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  Connection connection;
  connection.channel =
      grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
  connection.stub = v1::Acuity::NewStub(connection.channel);
  return connection;
}

int Complain(const grpc::Status& status, const std::string& server) {
  std::cerr << "acuity: " << CodeName(status.error_code()) << ": " << status.error_message();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE)
    std::cerr << " (server " << server << ")";
  std::cerr << "\n";
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
