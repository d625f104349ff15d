#include "server/file_watch.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace acuity::server {
namespace {

namespace fs = std::filesystem;

class FileWatchTest : public ::testing::Test {
 protected:
  FileWatchTest() {
    std::string pattern = ::testing::TempDir() + "file_watch.XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~FileWatchTest() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ / name; }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(Path(name)) << text;
  }

  fs::path folder_;
};

TEST_F(FileWatchTest, TellsEachChangeOnce) {
  Write("a", "one");
  Write("b", "one");
  FileWatch watch({Path("a"), Path("b")});
  EXPECT_FALSE(watch.Changed());
  Write("b", "longer");
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
  // The same size, at another time.
  fs::last_write_time(Path("a"), fs::last_write_time(Path("a")) + std::chrono::seconds(2));
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
}

TEST_F(FileWatchTest, VanishingAndAppearingAreChanges) {
  FileWatch watch({Path("a")});
  EXPECT_FALSE(watch.Changed());
  Write("a", "one");
  EXPECT_TRUE(watch.Changed());
  fs::remove(Path("a"));
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
}

// As Kubernetes changes a Secret: ..data is a link that is swapped; size and time stay the same.
TEST_F(FileWatchTest, ASwappedLinkIsAChange) {
  for (const char* version : {"v1", "v2"}) {
    fs::create_directory(folder_ / version);
    Write(std::string(version) + "/token", "same size");
  }
  fs::last_write_time(Path("v2/token"), fs::last_write_time(Path("v1/token")));
  fs::create_symlink("v1", folder_ / "..data");
  FileWatch watch({Path("..data/token")});
  EXPECT_FALSE(watch.Changed());
  fs::create_symlink("v2", folder_ / "new");
  fs::rename(folder_ / "new", folder_ / "..data");
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
}

TEST_F(FileWatchTest, NothingToWatchNeverChanges) {
  FileWatch watch({});
  EXPECT_FALSE(watch.Changed());
  FileWatch no_name({""});
  EXPECT_FALSE(no_name.Changed());
}

}  // namespace
}  // namespace acuity::server
