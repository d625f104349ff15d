#include "server/grpc/tenant_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace acuity::server {
namespace {

using ::testing::HasSubstr;

TEST(TenantLedgerTest, HoldsRequestsToTheLimitAndNotBeyond) {
  TenantLedger ledger({.max_requests = 2});
  auto first = ledger.Take("ann", 1'000'000);
  auto second = ledger.Take("ann", 1'000'000);
  ASSERT_TRUE(first.ok() && second.ok());
  const auto third = ledger.Take("ann", 1);
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(third.status().message()),
              HasSubstr("tenant ann: 2 requests are under way, the limit is 2"));
  EXPECT_TRUE(ledger.Take("bob", 1).ok());
  first->Answered();  // still under way
  EXPECT_FALSE(ledger.Take("ann", 1).ok());
  first->Release();
  first->Release();  // once is enough, twice is no more
  EXPECT_TRUE(ledger.Take("ann", 1).ok());
}

TEST(TenantLedgerTest, HoldsQueuedTokensToTheLimitUntilTheFirstAnswer) {
  TenantLedger ledger({.max_queued_tokens = 100});
  EXPECT_TRUE(ledger.Take("ann", 100).ok());  // given back at once
  EXPECT_FALSE(ledger.Take("ann", 101).ok());
  auto lease = ledger.Take("ann", 60);
  ASSERT_TRUE(lease.ok());
  const auto refused = ledger.Take("ann", 41);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("60 prompt tokens wait"));
  EXPECT_TRUE(ledger.Take("ann", 40).ok());
  lease->Answered();
  lease->Answered();
  EXPECT_TRUE(ledger.Take("ann", 100).ok());
}

TEST(TenantLedgerTest, ALeaseMovesAndGivesBackOnce) {
  TenantLedger ledger({.max_requests = 1});
  {
    TenantLedger::Lease kept;
    {
      auto lease = ledger.Take("ann", 1);
      ASSERT_TRUE(lease.ok());
      kept = *std::move(lease);
    }
    EXPECT_FALSE(ledger.Take("ann", 1).ok());
  }
  EXPECT_TRUE(ledger.Take("ann", 1).ok());
}

TEST(TenantLedgerTest, NobodyAndNoLimitAreUnlimited) {
  TenantLedger limited({.max_requests = 1, .max_queued_tokens = 1});
  TenantLedger unlimited({});
  std::vector<TenantLedger::Lease> leases;
  for (int i = 0; i < 10; ++i) {
    auto nobody = limited.Take("", 1000);
    auto ann = unlimited.Take("ann", 1'000'000'000);
    ASSERT_TRUE(nobody.ok() && ann.ok());
    leases.push_back(*std::move(nobody));
    leases.push_back(*std::move(ann));
  }
}

TEST(TenantLedgerTest, ManyThreadsNeverExceedIt) {
  TenantLedger ledger({.max_requests = 3});
  std::atomic<int> held{0}, most{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        auto lease = ledger.Take("ann", 1);
        if (!lease.ok()) continue;
        const int now = ++held;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        --held;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 3);
  EXPECT_TRUE(ledger.Take("ann", 1).ok());
}

}  // namespace
}  // namespace acuity::server
