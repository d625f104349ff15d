#include "server/config.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace acuity::server {
namespace {

struct Parsed {
  std::optional<DaemonConfig> config;
  int exit_code = -1;
};

Parsed Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "acuityd");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  Parsed parsed;
  parsed.config = ParseCommandLine(static_cast<int>(argv.size()), argv.data(), &parsed.exit_code);
  return parsed;
}

TEST(ConfigTest, DefaultsServeOnLoopbackOnly) {
  const Parsed parsed = Parse({"--model", "m=/x.gguf"});
  ASSERT_TRUE(parsed.config);
  EXPECT_EQ(parsed.config->listen, "127.0.0.1:8700");
  EXPECT_EQ(parsed.config->metrics_listen, "127.0.0.1:8701");
  EXPECT_EQ(parsed.config->models[0].name, "m");
  EXPECT_EQ(parsed.config->models[0].path, "/x.gguf");
  EXPECT_EQ(parsed.config->dtype, kernels::DType::kBFloat16);
  EXPECT_EQ(parsed.config->kv_memory_bytes, int64_t{1} << 30);
}

TEST(ConfigTest, SeveralModelsWithPolicies) {
  const Parsed parsed = Parse({"--model", "a=/a", "--model", "b=/b=c", "--attention",
                               "b=ssmax:s=0.2,b=0.1", "--dtype", "float32"});
  ASSERT_TRUE(parsed.config);
  EXPECT_EQ(parsed.config->models[1].path, "/b=c");
  EXPECT_EQ(parsed.config->models[0].attention_policy, "");
  EXPECT_EQ(parsed.config->models[1].attention_policy, "ssmax:s=0.2,b=0.1");
  EXPECT_EQ(parsed.config->dtype, kernels::DType::kFloat32);
}

TEST(ConfigTest, KvIsAsTheWeightsUnlessItIsSaid) {
  const auto kv_dtype = [](std::vector<std::string> flags) {
    flags.insert(flags.end(), {"--model", "m=/x"});
    return Parse(flags).config.value().kv_dtype;
  };
  EXPECT_EQ(kv_dtype({}), kernels::DType::kBFloat16);
  EXPECT_EQ(kv_dtype({"--dtype", "float32"}), kernels::DType::kFloat32);
  EXPECT_EQ(kv_dtype({"--dtype", "float32", "--kv-dtype", "auto"}), kernels::DType::kFloat32);
  EXPECT_EQ(kv_dtype({"--dtype", "float32", "--kv-dtype", "bfloat16"}), kernels::DType::kBFloat16);
  EXPECT_EQ(kv_dtype({"--kv-dtype", "float8"}), kernels::DType::kFloat8);
  EXPECT_EQ(kv_dtype({"--kv-dtype", "float32"}), kernels::DType::kFloat32);
}

TEST(ConfigTest, Sizes) {
  const std::pair<const char*, int64_t> rows[] = {
      {"1", 1}, {"10B", 10}, {"2KB", 2000}, {"1.5MiB", 1572864}, {"3GB", 3'000'000'000}};
  for (const auto& [text, bytes] : rows) {
    const Parsed parsed = Parse({"--model", "m=/x", "--kv-memory", text});
    ASSERT_TRUE(parsed.config) << text;
    EXPECT_EQ(parsed.config->kv_memory_bytes, bytes);
  }
  for (const char* text : {"", "x", "-1", "1TiB2", "nan", "1e30", "5 MB", "inf"}) {
    EXPECT_EQ(Parse({"--model", "m=/x", "--kv-memory", text}).exit_code, 2) << text;
  }
}

TEST(ConfigTest, WrongUsageExitsWithTwo) {
  const std::vector<std::vector<std::string>> rows = {
      {},
      {"--model"},
      {"--model", "x"},
      {"--model", "=x"},
      {"--model", "x="},
      {"--model", "m=/x", "--unknown"},
      {"--model", "m=/x", "--model", "m=/y"},
      {"--model", "m=/x", "--attention", "n=softmax"},
      {"--model", "m=/x", "--dtype", "int8"},
      {"--model", "m=/x", "--dtype", "float8"},
      {"--model", "m=/x", "--kv-dtype", "float16"},
      {"--model", "m=/x", "--block-size", "17"},
      {"--model", "m=/x", "--max-queue", "0"},
      {"--model", "m=/x", "--threads", "-1"},
      {"--model", "m=/x", "--device", "cuda"},
      {"--model", "m=/x", "--max-running", "600"},
      {"--model", "m=/x", "--config", "/no/such/file"},
      {"--model", "m=/x", "stray"}};
  for (const auto& arguments : rows) EXPECT_EQ(Parse(arguments).exit_code, 2);
}

TEST(ConfigTest, HelpAndVersionExitWithZero) {
  EXPECT_EQ(Parse({"--help"}).exit_code, 0);
  EXPECT_EQ(Parse({"--version"}).exit_code, 0);
}

TEST(ConfigTest, AFileHasTheFlagsNamesAndUnknownKeysAreErrors) {
  const std::string path = testing::TempDir() + "/acuity_config_test.toml";
  std::ofstream(path) << "model = [\"a=/a\", \"b=/b\"]\nkv-memory = \"64MiB\"\nmax-queue = 7\n";
  Parsed parsed = Parse({"--config", path});
  ASSERT_TRUE(parsed.config);
  EXPECT_EQ(parsed.config->models.size(), 2u);
  EXPECT_EQ(parsed.config->kv_memory_bytes, 64 << 20);
  EXPECT_EQ(parsed.config->max_queue, 7);
  std::ofstream(path) << "model = [\"a=/a\"]\nmax-cue = 7\n";
  EXPECT_EQ(Parse({"--config", path}).exit_code, 2);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace acuity::server
