// What each tenant uses of the daemon, and the limits on it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace acuity::server {

// The same for every tenant; 0: no limit.
struct TenantLimits {
  int max_requests = 0;           // under way at a time, waiting or running
  int64_t max_queued_tokens = 0;  // prompt tokens of requests that have not answered anything yet
};

// Thread-safe.
class TenantLedger {
 public:
  explicit TenantLedger(TenantLimits limits) : limits_(limits) {}

  // One request's share, given back when this goes. The ledger outlives it.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept { *this = std::move(other); }
    Lease& operator=(Lease&& other) noexcept {
      std::swap(ledger_, other.ledger_);
      std::swap(tenant_, other.tenant_);
      std::swap(queued_tokens_, other.queued_tokens_);
      return *this;
    }
    ~Lease() { Release(); }

    // The request has its first answer: its tokens no longer count as queued.
    void Answered();
    void Release();

   private:
    friend class TenantLedger;
    TenantLedger* ledger_ = nullptr;
    std::string tenant_;
    int64_t queued_tokens_ = 0;
  };

  // ResourceExhausted "tenant NAME: ..." if that would exceed a limit. `tenant` "" is nobody in
  // particular and has no limit.
  absl::StatusOr<Lease> Take(const std::string& tenant, int64_t prompt_tokens);

 private:
  struct Use {
    int requests = 0;
    int64_t queued_tokens = 0;
  };
  void GiveBack(const std::string& tenant, int requests, int64_t queued_tokens);

  const TenantLimits limits_;
  std::mutex mutex_;
  std::map<std::string, Use> uses_;  // of those that use something
};

}  // namespace acuity::server
