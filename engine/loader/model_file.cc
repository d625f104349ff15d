#include "engine/loader/model_file.h"

#include <filesystem>
#include <system_error>

#include "engine/loader/gguf.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

namespace fs = std::filesystem;

// Whether a link of `directory` may end in `folder`. Both are canonical.
bool MayEndIn(const fs::path& folder, const fs::path& directory) {
  if (folder == directory) return true;
  const fs::path snapshots = directory.parent_path();
  return snapshots.filename() == "snapshots" && folder == snapshots.parent_path() / "blobs";
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> OpenModelFile(const std::string& directory,
                                                          std::string_view name,
                                                          uint64_t max_bytes) {
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
    return InvalidArgument(directory, ": ", QuoteForError(name),
                           " is not the plain name of a file in this directory");
  }
  const std::string path = Concat(directory, directory.ends_with('/') ? "" : "/", name);
  std::error_code error;
  if (fs::is_symlink(path, error)) {
    const fs::path folder = fs::canonical(directory, error);
    const fs::path target = error ? fs::path() : fs::canonical(path, error);
    if (error) return InvalidArgument(path, " is a symbolic link: ", error.message());
    if (!MayEndIn(target.parent_path(), folder)) {
      return InvalidArgument(path, " is a symbolic link to ", target.string(),
                             "; it must end in this directory or in its hub cache's blobs");
    }
  }
  return MappedFile::Open(path, max_bytes);
}

}  // namespace acuity::engine
