// An acuityd that this process starts for itself, on a Unix socket, and ends.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cpp/connection.h"

namespace acuity::client {

// `given`, or the acuityd beside the running executable. NotFound names where it was looked for.
absl::StatusOr<std::string> FindDaemon(const std::string& given);

// One running daemon. It ends with this object, and with the thread that started it. Not
// thread-safe, but for connection().
class ChildDaemon {
 public:
  // Runs `program` with `arguments` (without addresses). `folder` is writable, short enough for a
  // socket's name, and gets "socket" and "log". Returns once the daemon serves; an error quotes the
  // last lines of its log. Cancelled when `*interrupted` becomes nonzero meanwhile.
  static absl::StatusOr<std::unique_ptr<ChildDaemon>> Start(
      const std::string& program, const std::vector<std::string>& arguments,
      const std::string& folder, const volatile int* interrupted);
  ~ChildDaemon();
  ChildDaemon(const ChildDaemon&) = delete;
  ChildDaemon& operator=(const ChildDaemon&) = delete;

  const Connection& connection() const { return connection_; }
  // Why it ended, or OK while it runs.
  absl::Status Check();

 private:
  ChildDaemon(pid_t pid, std::string log) : pid_(pid), log_(std::move(log)) {}

  pid_t pid_;  // 0: it has ended
  const std::string log_;
  Connection connection_;
};

}  // namespace acuity::client
