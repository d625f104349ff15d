#include "server/grpc/status.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"

namespace acuity::server {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

template <typename Message>
std::optional<Message> Find(const google::rpc::Status& details) {
  for (const auto& any : details.details()) {
    Message message;
    if (any.UnpackTo(&message)) return message;
  }
  return std::nullopt;
}

TEST(StatusTest, OkHasNoDetails) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).error_details().empty());
}

TEST(StatusTest, EveryErrorCarriesErrorInfo) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "what"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "what");
    const auto info = Find<google::rpc::ErrorInfo>(Details(status));
    ASSERT_TRUE(info);
    EXPECT_EQ(info->domain(), "acuity");
    EXPECT_FALSE(info->reason().empty());
  }
}

TEST(StatusTest, InvalidArgumentNamesTheField) {
  const auto details =
      Details(ToGrpcStatus(absl::InvalidArgumentError("sampling.n: 17 is not within 1 to 16")));
  const auto bad = Find<google::rpc::BadRequest>(details);
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->field_violations(0).field(), "sampling.n");
  EXPECT_EQ(bad->field_violations(0).description(), "17 is not within 1 to 16");
}

TEST(StatusTest, AFullQueueSaysWhenToComeBack) {
  const auto details = Details(ToGrpcStatus(absl::ResourceExhaustedError("queue: 5 wait")));
  EXPECT_GT(Find<google::rpc::RetryInfo>(details)->retry_delay().seconds(), 0);
  EXPECT_EQ(Find<google::rpc::QuotaFailure>(details)->violations(0).subject(), "queue");
}

}  // namespace
}  // namespace acuity::server
