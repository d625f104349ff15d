// TLS for the gRPC listener, from PEM files that may change while it serves.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"

namespace grpc {
class ServerCredentials;
}

namespace acuity::server {

struct TlsFiles {
  std::string cert;       // the server's certificate, then its intermediates
  std::string key;        // its private key, not encrypted
  std::string client_ca;  // "": clients need no certificate; else they need one that this signed
};

// TLS 1.2 and 1.3. Each new connection is shaken hands with what was loaded last; connections that
// are open keep theirs. Thread-safe.
//
// Not by gRPC's own file watcher: read and checked here, certificate, key and authority replace the
// old ones together or not at all, and the log says why not.
class TlsCredentials {
 public:
  // Reads and checks the files. InvalidArgument names the flag, the file and what is wrong.
  static absl::StatusOr<std::unique_ptr<TlsCredentials>> Load(TlsFiles files);

  // Reads and checks them again. On an error what was loaded before stays in use.
  absl::Status Reload();
  // For AddListeningPort, of one server. REQUIRES that this outlives the server.
  std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials();
  // The end of the certificate's validity, "Nov 24 10:00:00 2027 GMT"; for the log.
  std::string not_after() const;

  // Internal: what gRPC asks for at each handshake.
  struct Material {
    std::string cert, key, client_ca, not_after;
  };
  // What was loaded since the last call, or null.
  std::shared_ptr<const Material> TakeNew();

 private:
  explicit TlsCredentials(TlsFiles files) : files_(std::move(files)) {}

  const TlsFiles files_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Material> material_;
  bool taken_ = false;  // by TakeNew
};

}  // namespace acuity::server
