// A model directory: which files are read, where links may lead, and an index that lies.
#include <malloc.h>
#include <sys/stat.h>

#include <bit>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/loader/model_file.h"
#include "engine/loader/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HeaderText;
using testing::Safetensors;
using testing::TemporaryDirectory;
using testing::TensorText;
using testing::TwoTensors;

constexpr char kIndex[] = "model.safetensors.index.json";

std::string ErrorOf(const std::string& directory) {
  const auto set = SafetensorsSet::Open(directory);
  return set.ok() ? "no error" : std::string(set.status().message());
}

testing::Bytes OneTensor(const std::string& name) {
  return Safetensors(HeaderText({TensorText(name, "F32", "1", 0, 4)}), 4);
}

// x.safetensors holds a, y.safetensors holds b; the index says so.
class SafetensorsSetTest : public ::testing::Test {
 protected:
  SafetensorsSetTest() {
    directory_.Write("x.safetensors", OneTensor("a"));
    directory_.Write("y.safetensors", OneTensor("b"));
    WriteMap(R"("a": "x.safetensors", "b": "y.safetensors")");
  }
  void WriteMap(const std::string& entries) {
    directory_.Write(kIndex, R"({"metadata": {"total_size": 8}, "weight_map": {)" + entries + "}}");
  }
  std::string Error() const { return ErrorOf(directory_.path()); }
  std::string ErrorOfMap(const std::string& entries) {
    WriteMap(entries);
    return Error();
  }
  std::string ErrorOfIndex(std::string_view json) {
    directory_.Write(kIndex, json);
    return Error();
  }

  TemporaryDirectory directory_;
};

TEST_F(SafetensorsSetTest, ReadsShards) {
  const auto set = SafetensorsSet::Open(directory_.path());
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_EQ((*set)->tensors().size(), 2u);
  const SafetensorsTensor* b = (*set)->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ((*set)->files()[b->file], directory_ / "y.safetensors");
  EXPECT_EQ((*set)->Find("c"), nullptr);
  EXPECT_EQ((*set)->file_bytes(), fs::file_size(directory_ / "x.safetensors") +
                                      fs::file_size(directory_ / "y.safetensors"));
  float out = 0;
  EXPECT_TRUE(ReadAsFloat(*b, 0, 1, &out).ok());
  EXPECT_EQ(out, std::bit_cast<float>(0x03020100u));
}

TEST_F(SafetensorsSetTest, ASingleFileComesFirst) {
  directory_.Write("model.safetensors", TwoTensors());
  const auto set = SafetensorsSet::Open(directory_.path());
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ((*set)->files(), std::vector{directory_ / "model.safetensors"});
  directory_.Write("model.safetensors", "damaged");
  EXPECT_THAT(Error(), HasSubstr("model.safetensors: safetensors: the file has 7 bytes"));
}

TEST_F(SafetensorsSetTest, OtherFilesAreNotOpened) {
  directory_.Write("consolidated.safetensors", "damaged");
  directory_.Write("pytorch_model.bin", "damaged");
  ASSERT_EQ(mkfifo((directory_ / "fifo.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(Error(), "no error");
}

TEST_F(SafetensorsSetTest, NothingToRead) {
  const TemporaryDirectory empty;
  EXPECT_EQ(SafetensorsSet::Open(empty.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ErrorOf(empty.path()), HasSubstr("has neither model.safetensors nor model.safeten"));
  EXPECT_THAT(ErrorOf(empty / "no"), HasSubstr("cannot list"));
  EXPECT_THAT(ErrorOf(directory_ / "x.safetensors"), HasSubstr("Not a directory"));
}

TEST_F(SafetensorsSetTest, PickleIsRefused) {
  for (const std::string name : {"pytorch_model.bin", "model.pt", "consolidated.00.pth"}) {
    const TemporaryDirectory pickle;
    pickle.Write(name, "\x80\x04");
    EXPECT_THAT(ErrorOf(pickle.path()),
                HasSubstr("pickle files (" + name + ") are never read, for they can run code"));
  }
  EXPECT_THAT(ErrorOfMap(R"("a": "pytorch_model.bin")"),
              HasSubstr("'a' is 'pytorch_model.bin'; it must be the name of a .safetensors file"));
}

TEST_F(SafetensorsSetTest, PathsInTheIndex) {
  for (const std::string name : {"../outside.safetensors", "/etc/x.safetensors", "./x.safetensors",
                                 "sub/x.safetensors", "x\\u0000.safetensors"}) {
    EXPECT_THAT(ErrorOfMap("\"a\": \"" + name + "\""),
                AllOf(HasSubstr(std::string(kIndex) + ": "),
                      HasSubstr("is not the plain name of a file in this directory")))
        << name;
  }
  for (const std::string name : {"", "x", "x.safetensors.bak"}) {
    EXPECT_THAT(ErrorOfMap("\"a\": \"" + name + "\""), HasSubstr("of a .safetensors file")) << name;
  }
  EXPECT_THAT(ErrorOfMap(R"("a": "no.safetensors")"), HasSubstr("no.safetensors: No such file"));
}

TEST_F(SafetensorsSetTest, LinksAndWhatIsNoFile) {
  const TemporaryDirectory elsewhere;
  elsewhere.Write("x.safetensors", OneTensor("a"));
  const std::string x = directory_ / "x.safetensors";
  const auto link = [&](const std::string& target) {
    fs::remove(x);
    fs::create_symlink(target, x);
    return Error();
  };
  EXPECT_THAT(link(elsewhere / "x.safetensors"), AllOf(HasSubstr("is a symbolic link to "),
                                                       HasSubstr("it must end in this directory")));
  EXPECT_THAT(link("../" + fs::path(elsewhere.path()).filename().string() + "/x.safetensors"),
              HasSubstr("is a symbolic link to "));
  EXPECT_THAT(link("nowhere"), HasSubstr("is a symbolic link: No such file or directory"));
  EXPECT_THAT(link("x.safetensors"), HasSubstr("is a symbolic link: Too many levels"));
  directory_.Write("data", OneTensor("a"));
  EXPECT_EQ(link("data"), "no error");
  fs::remove(x);
  ASSERT_EQ(mkfifo(x.c_str(), 0600), 0);
  EXPECT_THAT(Error(), HasSubstr("x.safetensors is a FIFO, not a regular file"));
  fs::remove(x);
  fs::create_directory(x);
  EXPECT_THAT(Error(), HasSubstr("x.safetensors is a directory, not a regular file"));
  fs::remove(x);
  directory_.Write("x.safetensors", "");
  EXPECT_THAT(Error(), HasSubstr("x.safetensors is empty"));
}

TEST_F(SafetensorsSetTest, TheHubsCacheLinksIntoItsBlobs) {
  const TemporaryDirectory cache;
  const std::string snapshot = cache / "snapshots/0123";
  fs::create_directories(snapshot);
  fs::create_directory(cache / "blobs");
  fs::create_directory(cache / "other");
  cache.Write("blobs/abcd", TwoTensors());
  cache.Write("other/abcd", TwoTensors());
  fs::create_symlink("../../blobs/abcd", snapshot + "/model.safetensors");
  EXPECT_EQ(ErrorOf(snapshot), "no error");
  EXPECT_EQ(ErrorOf(snapshot + "/"), "no error");
  fs::create_directory_symlink(snapshot, cache / "link");
  EXPECT_EQ(ErrorOf(cache / "link"), "no error");
  fs::remove(snapshot + "/model.safetensors");
  fs::create_symlink("../../other/abcd", snapshot + "/model.safetensors");
  EXPECT_THAT(ErrorOf(snapshot), HasSubstr("it must end in this directory or in its hub cache's"));
}

TEST_F(SafetensorsSetTest, AnIndexThatLies) {
  EXPECT_THAT(ErrorOfMap(R"("a": "x.safetensors", "b": "x.safetensors")"),
              HasSubstr("weight_map's 'b' is not in 'x.safetensors'"));
  EXPECT_THAT(ErrorOfMap(R"("a": "y.safetensors", "b": "x.safetensors")"),
              HasSubstr("weight_map's 'a' is 'y.safetensors', but the tensor is in "));
  EXPECT_THAT(ErrorOfMap(R"("a": "x.safetensors", "b": "y.safetensors", "c": "y.safetensors")"),
              HasSubstr("weight_map's 'c' is not in 'y.safetensors'"));
  EXPECT_THAT(ErrorOfMap(R"("a": "x.safetensors", "a": "x.safetensors")"),
              HasSubstr("weight_map's 'a' occurs twice"));
  directory_.Write("x.safetensors", TwoTensors());
  EXPECT_THAT(ErrorOfMap(R"("a": "x.safetensors")"),
              HasSubstr("weight_map has no 'b', which is in " + (directory_ / "x.safetensors")));
  EXPECT_THAT(ErrorOfMap(R"("a": "x.safetensors", "b": "y.safetensors")"),
              AllOf(HasSubstr("tensor 'b' is in "), HasSubstr("x.safetensors and in ")));
}

TEST_F(SafetensorsSetTest, DamagedIndices) {
  EXPECT_THAT(ErrorOfIndex("["), HasSubstr("it is an array; it must be an object"));
  EXPECT_THAT(ErrorOfIndex("7"), HasSubstr("it is a number; it must be an object"));
  EXPECT_THAT(ErrorOfIndex("{"), HasSubstr("not valid JSON at byte 2"));
  EXPECT_THAT(ErrorOfIndex(std::string_view("{}\0", 3)), HasSubstr("a byte of 0"));
  EXPECT_THAT(ErrorOfIndex("{}"), HasSubstr("weight_map is missing"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map": 1})"),
              HasSubstr("weight_map is a number; it must be"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map": []})"),
              HasSubstr("weight_map is an array; it must b"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map": {"a": 1}})"),
              HasSubstr("weight_map's 'a' is a number; it must be a file name"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map": {"a": {"x": "y"}}})"), HasSubstr("'a' is an object"));
  EXPECT_THAT(ErrorOfIndex(R"({"weight_map": {}, "weight_map": {}})"), HasSubstr("occurs twice"));
  EXPECT_THAT(ErrorOfIndex("{\"x\": " + std::string(100000, '[')), HasSubstr("deeper than 16"));
  EXPECT_EQ(ErrorOfIndex(R"({"weight_map": {}, "x": [{"weight_map": 1}, "a", null]})"), "no error");
  fs::resize_file(directory_ / kIndex, kMaxSafetensorsIndexBytes + 1);
  EXPECT_THAT(Error(), HasSubstr("has 16777217 bytes, more than the limit of 16777216"));
}

TEST_F(SafetensorsSetTest, TooManyFilesAndTensors) {
  std::string entries;
  for (uint64_t i = 0; i <= kMaxSafetensorsShards; ++i) {
    const std::string number = std::to_string(i);
    entries += "\"" + number + "\": \"" + number + ".safetensors\",";
  }
  entries.pop_back();
  EXPECT_THAT(ErrorOfMap(entries), HasSubstr("names more than the limit of 4096 files"));

  for (const std::string file : {"x", "y"}) {
    std::vector<std::string> texts;
    for (uint64_t i = 0; i <= kMaxSafetensors / 2; ++i) {
      texts.push_back(TensorText(file + std::to_string(i), "U8", "0", 0, 0));
    }
    directory_.Write(file + ".safetensors", Safetensors(HeaderText(texts), 0));
  }
  EXPECT_THAT(ErrorOfMap(R"("x1": "x.safetensors", "y1": "y.safetensors")"),
              HasSubstr("y.safetensors: with this file there are 131074 tensors, more than the "
                        "limit of 131072"));
}

// The costliest file that is accepted: as many tensors as may be, their names as long.
TEST_F(SafetensorsSetTest, MemoryIsBounded) {
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < kMaxSafetensors; ++i) {
    std::string name = std::to_string(i);
    name.resize(kMaxSafetensorsNameBytes, 'n');
    texts.push_back(TensorText(name, "U8", "0", 0, 0));
  }
  directory_.Write("model.safetensors", Safetensors(HeaderText(texts), 0));
  texts = {};
  const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
  const auto set = SafetensorsSet::Open(directory_.path());
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_LT(mallinfo2().uordblks + mallinfo2().hblkhd - before, 64u << 20);
}

}  // namespace
}  // namespace acuity::engine
