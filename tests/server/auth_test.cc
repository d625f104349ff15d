#include "server/grpc/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace acuity::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// SHA-256 of "abc" and of "" (FIPS 180-2's examples).
const std::string kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const std::string kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

class AuthTest : public ::testing::Test {
 protected:
  ~AuthTest() override { std::remove(path_.c_str()); }
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  absl::Status LoadStatus(const std::string& text) {
    Write(text);
    return Authenticator::Load(path_).status();
  }

  const std::string path_ = ::testing::TempDir() + "auth_test." +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(AuthTest, WithoutAFileNobodyNeedsAToken) {
  EXPECT_FALSE(Authenticator().required());
  EXPECT_EQ(Authenticator().num_tokens(), 0);
}

TEST_F(AuthTest, KnowsTheTokenBehindItsHash) {
  Write("# comment\n\n  ann " + kAbc + "  \nann-2.x_Y " + kEmpty + "\n");
  const auto auth = Authenticator::Load(path_);
  ASSERT_TRUE(auth.ok()) << auth.status();
  EXPECT_TRUE((*auth)->required());
  EXPECT_EQ((*auth)->num_tokens(), 2);
  EXPECT_EQ((*auth)->TenantOf("Bearer abc"), "ann");
  EXPECT_EQ((*auth)->TenantOf("bEARER abc"), "ann");
  for (const char* wrong : {"", "abc", "Bearer", "Bearer ", "Bearer abd", "Bearer  abc",
                            "Bearer abc ", "Basic abc", "Bearerabc"}) {
    EXPECT_EQ((*auth)->TenantOf(wrong), std::nullopt) << wrong;
  }
  // The hash is not the token.
  EXPECT_EQ((*auth)->TenantOf("Bearer " + kAbc), std::nullopt);
}

TEST_F(AuthTest, RefusesWhatIsNoTokenFileAndNamesTheLine) {
  const std::string ann = "ann " + kAbc + "\n";
  const struct {
    std::string text, part;
  } rows[] = {
      {"", "holds no token"},
      {"# only this\n", "holds no token"},
      {ann + "bob\n", ":2: not"},
      {ann + "bob 1234\n", ":2: not"},
      {"ann " + kAbc.substr(1) + "g\n", ":1: not"},
      {"ann " + kAbc + "0\n", ":1: not"},
      {"ann " + kAbc + " more\n", ":1: not"},
      {"a/b " + kAbc + "\n", ":1: the tenant"},
      {std::string(129, 'a') + " " + kAbc + "\n", ":1: the tenant"},
      {ann + "bob " + kAbc + "\n", ":2: a token that is listed before"},
  };
  for (const auto& row : rows) {
    const absl::Status status = LoadStatus(row.text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(row.part));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(kAbc)));
  }
  EXPECT_TRUE(LoadStatus(std::string(128, 'a') + " " + kAbc + "\n").ok());
  EXPECT_EQ(Authenticator::Load("/no/such").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AuthTest, AtMostTenThousandTokens) {
  std::string text;
  for (int i = 0; i < 10'000; ++i) {
    char line[80];
    std::snprintf(line, sizeof line, "t %064x\n", i);
    text += line;
  }
  EXPECT_TRUE(LoadStatus(text).ok());
  EXPECT_THAT(std::string(LoadStatus(text + "t " + kAbc + "\n").message()), HasSubstr("10000"));
}

TEST_F(AuthTest, ABrokenReloadLeavesWhatWasKnown) {
  Write("ann " + kAbc + "\n");
  const auto auth = Authenticator::Load(path_);
  ASSERT_TRUE(auth.ok());
  Write("ann 12\n");
  EXPECT_FALSE((*auth)->Reload().ok());
  EXPECT_EQ((*auth)->TenantOf("Bearer abc"), "ann");
  Write("bob " + kAbc + "\n");
  EXPECT_TRUE((*auth)->Reload().ok());
  EXPECT_EQ((*auth)->TenantOf("Bearer abc"), "bob");
}

TEST_F(AuthTest, CountsRefusals) {
  std::atomic<int64_t> refusals{0};
  Authenticator auth;
  auth.CountRefusal();
  auth.set_refusals(&refusals);
  auth.CountRefusal();
  EXPECT_EQ(refusals, 1);
}

}  // namespace
}  // namespace acuity::server
