// Whether files changed since somebody last looked.
#pragma once

#include <string>
#include <vector>

namespace acuity::server {

// Polled, not notified: Kubernetes swaps a symbolic link when a Secret changes, and network file
// systems send no events. Not thread-safe.
class FileWatch {
 public:
  explicit FileWatch(std::vector<std::string> paths)
      : paths_(std::move(paths)), seen_(Fingerprint()) {}

  // True once for each change of a file's device, inode, size or modification time; a file that
  // vanishes or appears has changed.
  bool Changed();

 private:
  std::string Fingerprint() const;

  std::vector<std::string> paths_;
  std::string seen_;
};

}  // namespace acuity::server
