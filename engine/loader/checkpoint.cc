#include "engine/loader/checkpoint.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/loader/gguf_checkpoint.h"
#include "engine/loader/hf_checkpoint.h"
#include "engine/loader/hf_tokenizer.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return OpenGgufFile(path);
  if (!std::filesystem::exists(path + "/config.json", ignored)) {
    return absl::NotFoundError(Concat(path, " is a directory without config.json: no model"));
  }
  ACUITY_ASSIGN_OR_RETURN(TokenizerSpec tokenizer, ReadHfTokenizer(path));
  return OpenHf(path, std::move(tokenizer));
}

}  // namespace acuity::engine
