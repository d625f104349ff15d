#include "engine/loader/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

const char* KindOfFile(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path,
                                                             uint64_t max_bytes) {
  // O_NONBLOCK: opening a FIFO that nobody writes to returns at once, and is then refused below.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return absl::ErrnoToStatus(errno, Concat("cannot open ", path));
  absl::Cleanup close_fd = [fd] { close(fd); };

  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, Concat("cannot stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(path, " is ", KindOfFile(info.st_mode), ", not a regular file");
  }
  if (info.st_size <= 0) return InvalidArgument(path, " is empty");
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  if (size > max_bytes) {
    return InvalidArgument(path, " has ", size, " bytes, more than the limit of ", max_bytes);
  }
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, Concat("cannot map ", path));
  }
  return std::unique_ptr<MappedFile>(
      new MappedFile(std::span(static_cast<const uint8_t*>(address), size)));
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size()); }

}  // namespace acuity::engine
