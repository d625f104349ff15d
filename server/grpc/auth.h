// Who calls: bearer tokens, each of a tenant, from a file that holds only their hashes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace acuity::server {

// Thread-safe.
//
// The file has one token per line, `TENANT SHA256`: a name of 1 to 128 letters, digits, '.', '_'
// or '-', and the token's SHA-256 in 64 hexadecimal digits. Empty lines and lines that start with
// '#' are skipped. A tenant may have several tokens (to change one without a gap), a token only one
// tenant. The hash is unsalted: tokens must be random (`openssl rand -hex 32`), not words.
class Authenticator {
 public:
  // Lets everybody in, as tenant "".
  Authenticator() = default;
  // Reads `path`. InvalidArgument names the line; nothing of a hash is ever in a message.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Load(const std::string& path);

  // Reads the file again. On an error what was known before stays.
  absl::Status Reload();

  bool required() const { return !path_.empty(); }
  // The tenant of an `authorization` header ("Bearer TOKEN"), or nothing. Takes as long whichever
  // token it is, or none: the hash is compared with every known one, in constant time.
  std::optional<std::string> TenantOf(std::string_view authorization) const;
  int num_tokens() const;

  // Where callers that were turned away are counted; not owned, null: nowhere. Before it serves.
  void set_refusals(std::atomic<int64_t>* refusals) { refusals_ = refusals; }
  void CountRefusal() const {
    if (refusals_ != nullptr) ++*refusals_;
  }

 private:
  struct Entry {
    std::array<unsigned char, 32> digest;
    std::string tenant;
  };
  static absl::StatusOr<std::vector<Entry>> Parse(const std::string& path);

  std::atomic<int64_t>* refusals_ = nullptr;
  std::string path_;  // "": nobody needs a token
  mutable std::mutex mutex_;
  std::shared_ptr<const std::vector<Entry>> entries_;
};

}  // namespace acuity::server
