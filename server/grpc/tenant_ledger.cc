#include "server/grpc/tenant_ledger.h"

#include "absl/strings/str_cat.h"

namespace acuity::server {

void TenantLedger::Lease::Answered() {
  if (ledger_ != nullptr && queued_tokens_ > 0) {
    ledger_->GiveBack(tenant_, 0, std::exchange(queued_tokens_, 0));
  }
}

void TenantLedger::Lease::Release() {
  if (ledger_ == nullptr) return;
  std::exchange(ledger_, nullptr)->GiveBack(tenant_, 1, std::exchange(queued_tokens_, 0));
}

absl::StatusOr<TenantLedger::Lease> TenantLedger::Take(const std::string& tenant,
                                                       int64_t prompt_tokens) {
  Lease lease;
  if (tenant.empty()) return lease;
  std::lock_guard lock(mutex_);
  const auto it = uses_.find(tenant);
  const Use use = it == uses_.end() ? Use{} : it->second;
  if (limits_.max_requests > 0 && use.requests >= limits_.max_requests) {
    return absl::ResourceExhaustedError(absl::StrCat("tenant ", tenant, ": ", use.requests,
                                                     " requests are under way, the limit is ",
                                                     limits_.max_requests));
  }
  if (limits_.max_queued_tokens > 0 &&
      use.queued_tokens + prompt_tokens > limits_.max_queued_tokens) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "tenant ", tenant, ": ", use.queued_tokens, " prompt tokens wait, with this request's ",
        prompt_tokens, " more than the limit of ", limits_.max_queued_tokens));
  }
  uses_[tenant] = {use.requests + 1, use.queued_tokens + prompt_tokens};
  lease.ledger_ = this;
  lease.tenant_ = tenant;
  lease.queued_tokens_ = prompt_tokens;
  return lease;
}

void TenantLedger::GiveBack(const std::string& tenant, int requests, int64_t queued_tokens) {
  std::lock_guard lock(mutex_);
  const auto it = uses_.find(tenant);
  it->second.requests -= requests;
  it->second.queued_tokens -= queued_tokens;
  if (it->second.requests == 0) uses_.erase(it);
}

}  // namespace acuity::server
