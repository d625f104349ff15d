#include "server/file_watch.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::server {

bool FileWatch::Changed() {
  std::string now = Fingerprint();
  return std::exchange(seen_, now) != now;
}

std::string FileWatch::Fingerprint() const {
  std::string out;
  for (const std::string& path : paths_) {
    struct stat s {};
    if (stat(path.c_str(), &s) == 0) {
      absl::StrAppend(&out, s.st_dev, ":", s.st_ino, ":", s.st_size, ":", s.st_mtim.tv_sec, ".",
                      s.st_mtim.tv_nsec);
    }
    out += ';';
  }
  return out;
}

}  // namespace acuity::server
