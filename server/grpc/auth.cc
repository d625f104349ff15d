#include "server/grpc/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/limits.h"

namespace acuity::server {
namespace {

constexpr size_t kMaxTokens = 10'000;

bool IsTenantName(const std::string& name) {
  return !name.empty() && name.size() <= engine::kMaxIdBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Load(const std::string& path) {
  auto made = std::make_unique<Authenticator>();
  made->path_ = path;
  const absl::Status loaded = made->Reload();
  if (!loaded.ok()) return loaded;
  return made;
}

absl::Status Authenticator::Reload() {
  absl::StatusOr<std::vector<Entry>> entries = Parse(path_);
  if (!entries.ok()) return entries.status();
  auto shared = std::make_shared<const std::vector<Entry>>(*std::move(entries));
  std::lock_guard lock(mutex_);
  entries_ = std::move(shared);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Authenticator::Entry>> Authenticator::Parse(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("--auth-tokens: cannot read ", path));
  std::vector<Entry> entries;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const auto fail = [&](const char* what) {
      return absl::InvalidArgumentError(
          absl::StrCat("--auth-tokens: ", path, ":", number, ": ", what));
    };
    std::istringstream words(line);
    std::string tenant, hash, rest;
    words >> tenant >> hash >> rest;
    if (tenant.empty() || tenant.front() == '#') continue;
    if (!IsTenantName(tenant)) {
      return fail("the tenant is not 1 to 128 letters, digits, '.', '_' or '-'");
    }
    const bool hex = std::all_of(hash.begin(), hash.end(), absl::ascii_isxdigit);
    if (hash.size() != 64 || !hex || !rest.empty()) {
      return fail("not \"TENANT SHA256\" with 64 hexadecimal digits");
    }
    if (entries.size() == kMaxTokens) return fail("more than 10000 tokens");
    Entry entry;
    const std::string digest = absl::HexStringToBytes(hash);
    std::copy(digest.begin(), digest.end(), entry.digest.begin());
    entry.tenant = tenant;
    for (const Entry& other : entries) {
      if (other.digest == entry.digest) return fail("a token that is listed before");
    }
    entries.push_back(std::move(entry));
  }
  if (file.bad()) return absl::UnavailableError(absl::StrCat("--auth-tokens: cannot read ", path));
  // A file that is just being written looks like this, and it would lock everybody out.
  if (entries.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--auth-tokens: ", path, " holds no token"));
  }
  return entries;
}

std::optional<std::string> Authenticator::TenantOf(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() ||
      !absl::EqualsIgnoreCase(std::string(authorization.substr(0, kScheme.size())),
                              std::string(kScheme))) {
    return std::nullopt;
  }
  const std::string_view token = authorization.substr(kScheme.size());
  std::array<unsigned char, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());

  std::shared_ptr<const std::vector<Entry>> entries;
  {
    std::lock_guard lock(mutex_);
    entries = entries_;
  }
  const Entry* found = nullptr;
  for (const Entry& entry : *entries) {
    const bool same = CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0;
    found = same ? &entry : found;
  }
  if (found == nullptr) return std::nullopt;
  return found->tenant;
}

int Authenticator::num_tokens() const {
  std::lock_guard lock(mutex_);
  return entries_ == nullptr ? 0 : static_cast<int>(entries_->size());
}

}  // namespace acuity::server
