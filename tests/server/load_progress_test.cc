#include "server/load_progress.h"

#include <gmock/gmock.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

namespace acuity::server {
namespace {

using Json = nlohmann::json;

// The log's lines while `function` runs.
template <typename Function>
std::vector<Json> LinesOf(Function function) {
  testing::internal::CaptureStderr();
  function();
  std::istringstream text(testing::internal::GetCapturedStderr());
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
  return lines;
}

TEST(LoadProgressTest, ShortLoadsSayNothing) {
  absl::Time now = absl::UnixEpoch();
  const auto report = LogLoadProgress("m", "/m.gguf", [&now] { return now; });
  const std::vector<Json> lines = LinesOf([&] {
    for (int i = 1; i <= 9; ++i) {
      now += absl::Milliseconds(100);
      report(i, 9);
    }
  });
  EXPECT_TRUE(lines.empty());
}

TEST(LoadProgressTest, LongLoadsSayHowFarAndHowQuickOnceASecond) {
  absl::Time now = absl::UnixEpoch();
  const auto report = LogLoadProgress("m", "/m.gguf", [&now] { return now; });
  const std::vector<Json> lines = LinesOf([&] {
    for (int i = 1; i <= 100; ++i) {  // 1,000 bytes each 0.05 s, for 5 s
      now += absl::Milliseconds(50);
      report(i * 1000, 100'000);
    }
  });
  ASSERT_EQ(lines.size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(lines[i]["event"], "loading model");
    EXPECT_EQ(lines[i]["model"], "m");
    EXPECT_EQ(lines[i]["path"], "/m.gguf");
    EXPECT_EQ(lines[i]["done_bytes"], 20'000 * (i + 1));
    EXPECT_EQ(lines[i]["total_bytes"], 100'000);
    EXPECT_EQ(lines[i]["percent"], 20 * (i + 1));
    EXPECT_EQ(lines[i]["bytes_per_second"], 20'000);
  }
}

TEST(LoadProgressTest, ManyThreadsWriteOneLineASecond) {
  std::atomic<int64_t> milliseconds{0};
  const auto report = LogLoadProgress(
      "m", "/m.gguf", [&] { return absl::UnixEpoch() + absl::Milliseconds(milliseconds.load()); });
  const std::vector<Json> lines = LinesOf([&] {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) report(++milliseconds, 4000);
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  EXPECT_GE(lines.size(), 1u);
  EXPECT_LE(lines.size(), 4u);
}

}  // namespace
}  // namespace acuity::server
