#include "clients/cpp/score_cache.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::client {
namespace {

// FNV-1a.
void Hash(std::span<const uint8_t> bytes, uint64_t* hash) {
  for (const uint8_t byte : bytes) *hash = (*hash ^ byte) * 0x100000001b3u;
}

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

ScoreCache::ScoreCache(std::string folder, const std::string& model)
    : folder_(std::move(folder)), model_(model) {
  std::error_code error;
  const auto written = std::filesystem::last_write_time(model, error);
  absl::StrAppend(&model_, "\n", error ? 0 : written.time_since_epoch().count());
  if (!folder_.empty()) std::filesystem::create_directories(folder_, error);
}

std::string ScoreCache::Path(const Json& sidecar, std::span<const int32_t> tokens,
                             bool heads) const {
  uint64_t hash = 0xcbf29ce484222325u;
  Hash(Bytes(absl::StrCat(model_, "\n", heads, "\n", sidecar.dump(), "\n")), &hash);
  Hash({reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()}, &hash);
  return absl::StrCat(folder_, "/", absl::Hex(hash));
}

std::optional<v1::ScoreResponse> ScoreCache::Find(const Json& sidecar,
                                                  std::span<const int32_t> tokens,
                                                  bool heads) const {
  if (folder_.empty()) return std::nullopt;
  std::ifstream file(Path(sidecar, tokens, heads), std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  v1::ScoreResponse response;
  if (!response.ParseFromString(bytes)) return std::nullopt;
  if (response.logprobs_size() != static_cast<int>(tokens.size())) return std::nullopt;
  return response;
}

void ScoreCache::Keep(const Json& sidecar, std::span<const int32_t> tokens, bool heads,
                      const v1::ScoreResponse& response) const {
  if (folder_.empty()) return;
  std::ofstream(Path(sidecar, tokens, heads), std::ios::binary) << response.SerializeAsString();
}

void ScoreCache::Clear() const {
  std::error_code error;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, error);
}

}  // namespace acuity::client
