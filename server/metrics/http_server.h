// A small HTTP server for what operators read: GET of a fixed set of paths. civetweb behind it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace acuity::server {

struct HttpResource {
  std::string content_type;
  std::function<std::string()> body;  // thread-safe; called for each request
};

class HttpServer {
 public:
  // Serves `resources`, path -> what is there, on HOST:PORT (port 0: any) in threads of its own.
  // Other paths get 404, other methods 405. Unavailable if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const std::string& listen, std::map<std::string, HttpResource> resources);
  virtual ~HttpServer() = default;  // waits for the requests under way

  virtual const std::string& address() const = 0;  // with the port that was bound
};

}  // namespace acuity::server
