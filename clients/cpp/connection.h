// A connection to a daemon, and how its errors look to a person.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "acuity/v1/acuity.grpc.pb.h"
#include "clients/cpp/commands.h"

namespace acuity::client {

struct Connection {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Acuity::Stub> stub;
};

// Connects lazily: the first call fails if nobody is there. Throws std::runtime_error naming a file
// that cannot be read.
Connection Connect(const CommonOptions& common);

// That of --timeout, if there is one.
void SetDeadline(grpc::ClientContext& context, const CommonOptions& common);

// "INVALID_ARGUMENT: ...".
std::string Describe(const grpc::Status& status, const std::string& server);
// The same on stderr. Returns the exit code, 1.
int Complain(const grpc::Status& status, const std::string& server);

// The first model that the daemon lists, for commands without --model; "" (told on stderr) if it
// cannot be asked.
std::string DefaultModel(const Connection& connection, const std::string& server);

// The file's bytes, "-" being stdin; throws std::runtime_error naming the file.
std::string ReadFile(const std::string& path);

}  // namespace acuity::client
