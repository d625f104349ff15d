// Every architecture against transformers: a row of golden/architectures.json.gz each.
//
// ACUITY_MODELS_TABLE=docs/models.md architectures_test writes what was measured into that file's
// table, between its markers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "engine/loader/hf_architectures.h"
#include "engine/loader/hf_checkpoint.h"
#include "engine/model/model_runner.h"
#include "tests/engine/model/batch_maker.h"
#include "tests/parity/golden_file.h"
#include "tests/parity/tiny_directory.h"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;
using Logits = std::vector<std::vector<float>>;  // [rows][vocab]

constexpr double kTolerance = 2e-4;  // of a log-probability
constexpr int kBlockSize = 8;
constexpr int kStride = 16;  // blocks of a sequence
constexpr const char* kTable = "docs/models.md";

const Json& Golden() {
  static const Json* const golden = new Json(ReadGolden("architectures.json.gz"));
  return *golden;
}

struct Measured {
  double difference = 0;  // the largest
  int positions = 0, continuation = 0;
};
std::map<std::string, Measured>& Results() {
  static auto* const results = new std::map<std::string, Measured>;
  return *results;
}

// A directory of its own for each test, removed at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = testing::TempDir() + "/acuity-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::unique_ptr<ModelRunner> MakeRunner(const Checkpoint& checkpoint) {
  ModelOptions options;
  options.weight_dtype = options.kv_dtype = kernels::DType::kFloat32;
  options.block_size = kBlockSize;
  options.kv_memory_bytes = 4 << 20;
  options.max_batch_tokens = options.max_logit_rows = kBlockSize * kStride;
  auto runner = ModelRunner::Create(checkpoint, checkpoint.spec(), options, {});
  EXPECT_TRUE(runner.ok()) << runner.status();
  return runner.ok() ? *std::move(runner) : nullptr;
}

// The logits of `tokens`, which stand at positions first, first + 1, ... of the only sequence.
Logits Step(ModelRunner& runner, std::span<const int32_t> tokens, int first) {
  std::vector<int32_t> blocks(kStride);
  std::iota(blocks.begin(), blocks.end(), 1);
  Batch batch;
  ClearBatch(kStride, &batch);
  AddSequence(tokens, first, blocks, kBlockSize, LogitRows::kAll, &batch);
  StepOutput output;
  const absl::Status status = runner.Step(batch, &output);
  EXPECT_TRUE(status.ok()) << status;
  const size_t vocab = static_cast<size_t>(runner.spec().vocab_size);
  Logits logits;
  for (size_t row = 0; row < output.logits.size() / vocab; ++row) {
    const auto begin = output.logits.begin() + static_cast<int64_t>(row * vocab);
    logits.emplace_back(begin, begin + static_cast<int64_t>(vocab));
  }
  return logits;
}

int32_t Likeliest(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double LogSum(const std::vector<float>& logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(z - highest);
  return highest + std::log(sum);
}

// The largest difference to the golden's log-probabilities.
double Difference(const Json& row, const Logits& logits) {
  const Json& expected = row["logprobs"];
  EXPECT_EQ(expected.size(), logits.size());
  double largest = 0;
  for (size_t position = 0; position < logits.size(); ++position) {
    const double sum = LogSum(logits[position]);
    for (size_t token = 0; token < logits[position].size(); ++token) {
      const double want = expected[position][token].get<double>() * 1e-5;
      const double difference = std::abs(logits[position][token] - sum - want);
      if (!(difference <= largest)) largest = difference;  // NaN sticks out
    }
  }
  return largest;
}

class ArchitecturesTest : public testing::TestWithParam<size_t> {
 protected:
  const Json& row() const { return Golden()["rows"][GetParam()]; }
  std::string name() const { return row()["name"]; }

  // The types take turns: what they hold is the same.
  std::unique_ptr<Checkpoint> Open() {
    WriteTinyDirectory(row(), static_cast<StoredType>(GetParam() % 3), folder_.path());
    auto checkpoint = OpenHf(folder_.path(), {});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
  }

  Folder folder_;
};

TEST_P(ArchitecturesTest, MatchesTransformers) {
  const std::unique_ptr<Checkpoint> checkpoint = Open();
  ASSERT_NE(checkpoint, nullptr);
  const auto runner = MakeRunner(*checkpoint);
  ASSERT_NE(runner, nullptr);
  const std::vector<int32_t> prompt = row()["prompt"];
  const Logits whole = Step(*runner, prompt, 0);
  const double difference = Difference(row(), whole);
  std::printf("%s: largest |difference of a log-probability| %.1e\n", name().c_str(), difference);
  EXPECT_LE(difference, kTolerance);

  // Greedy, token by token on the cache.
  const std::vector<int32_t> continuation = row()["greedy"];
  std::vector<int32_t> tokens = prompt;
  Logits cached = whole;
  while (tokens.size() < prompt.size() + continuation.size()) {
    const int32_t next = Likeliest(cached.back());
    tokens.push_back(next);
    cached.push_back(Step(*runner, {&next, 1}, static_cast<int>(tokens.size()) - 1).at(0));
  }
  EXPECT_THAT(std::span(tokens).subspan(prompt.size()), testing::ElementsAreArray(continuation));
  // A pass over everything at once, and one in chunks, give the same bits.
  EXPECT_TRUE(Step(*runner, tokens, 0) == cached);
  Logits chunked;
  for (size_t begin = 0; begin < tokens.size(); begin += 13) {
    const size_t count = std::min<size_t>(13, tokens.size() - begin);
    for (std::vector<float>& logits :
         Step(*runner, std::span(tokens).subspan(begin, count), static_cast<int>(begin))) {
      chunked.push_back(std::move(logits));
    }
  }
  EXPECT_TRUE(chunked == cached);
  Results()[name()] = {difference, static_cast<int>(prompt.size()),
                       static_cast<int>(continuation.size())};
}

TEST_P(ArchitecturesTest, RefusesWhatItDoesNotUnderstand) {
  const auto error = [&](const Json& changed) {
    WriteTinyDirectory(changed, StoredType::kFloat32, folder_.path());
    return std::string(OpenHf(folder_.path(), {}).status().message());
  };
  Json changed = row();
  changed["config"]["clip_qkv"] = 8.0;
  EXPECT_THAT(error(changed), testing::HasSubstr("config.json: clip_qkv is 8.0"));
  changed = row();
  changed["config"]["quantization_config"] = {{"quant_method", "mxfp4"}};
  EXPECT_THAT(error(changed), testing::HasSubstr("config.json: quantization_config is {\"quant"));
  for (size_t i = 0; i < row()["tensors"].size(); ++i) {
    const std::string tensor = row()["tensors"][i][0];
    changed = row();
    changed["tensors"].erase(i);
    if (!tensor.ends_with("ssmax_bias")) {
      EXPECT_THAT(error(changed), testing::HasSubstr("is missing")) << tensor;
    }
    changed = row();
    changed["tensors"][i][1].push_back(1);
    const bool per_head = tensor.find("ssmax") != std::string::npos ||
                          tensor.ends_with("softmax_scaler");  // any shape of so many elements
    if (!per_head) {
      EXPECT_THAT(error(changed), testing::HasSubstr("tensor '" + tensor + "' has shape"))
          << tensor;
    }
    changed["tensors"][i][1] = {3};
    EXPECT_THAT(error(changed), testing::HasSubstr("tensor '" + tensor + "' has ")) << tensor;
  }
  changed = row();
  changed["tensors"].push_back({"model.layers.0.self_attn.temperature", {1}, 0, 0, 0});
  EXPECT_THAT(error(changed), testing::HasSubstr("'model.layers.0.self_attn.temperature' is not"));
}

// Files of the hub: a head that is stored though it is tied, a mask, and no "model." in front.
TEST(ArchitecturesListTest, WhatOlderFilesCarry) {
  const Folder folder;
  const auto& rows = Golden()["rows"];
  for (const Json& row : rows) {
    const std::string name = row["name"];
    Json changed = row;
    std::string base;
    if (name == "gpt2") {
      changed["tensors"].push_back({"h.0.attn.bias", {1, 1, 128, 128}, 0, 0, 0});
      base = "transformer.";
    } else if (name == "gemma") {
      changed["tensors"].push_back({"lm_head.weight", {48, 32}, 0, 0, -8});
      base = "model.";
    } else {
      continue;
    }
    for (Json& tensor : changed["tensors"]) {
      std::string& in_file = tensor[0].get_ref<std::string&>();
      if (in_file.starts_with(base)) in_file.erase(0, base.size());
    }
    WriteTinyDirectory(changed, StoredType::kFloat32, folder.path());
    const auto checkpoint = OpenHf(folder.path(), {});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  }
}

TEST(ArchitecturesListTest, TheTokenizerMustFit) {
  const Folder folder;
  WriteTinyDirectory(Golden()["rows"][0], StoredType::kFloat32, folder.path());
  TokenizerSpec tokenizer;
  tokenizer.tokens.assign(49, "token");
  tokenizer.kinds.assign(49, TokenKind::kNormal);
  EXPECT_THAT(std::string(OpenHf(folder.path(), tokenizer).status().message()),
              testing::HasSubstr("vocab_size is 48; it must be at least the number of the "
                                 "tokenizer's tokens, 49"));
  tokenizer.tokens.resize(40);
  tokenizer.kinds.resize(40);
  const auto checkpoint = OpenHf(folder.path(), tokenizer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tokenizer().tokens.size(), 48u);
  EXPECT_EQ((*checkpoint)->tokenizer().kinds[39], TokenKind::kNormal);
  EXPECT_EQ((*checkpoint)->tokenizer().kinds[40], TokenKind::kUnused);
}

TEST(ArchitecturesListTest, UnknownTypeAndMissingFiles) {
  const Folder folder;
  EXPECT_EQ(OpenHf(folder.path(), {}).status().code(), absl::StatusCode::kNotFound);
  Json changed = Golden()["rows"][0];
  changed["config"]["model_type"] = "mamba";
  WriteTinyDirectory(changed, StoredType::kFloat32, folder.path());
  EXPECT_THAT(std::string(OpenHf(folder.path(), {}).status().message()),
              testing::HasSubstr("config.json: model_type is \"mamba\"; supported: llama, "));
  WriteTinyDirectory(Golden()["rows"][0], StoredType::kFloat32, folder.path());
  std::filesystem::remove(folder.path() + "/model.safetensors");
  EXPECT_EQ(OpenHf(folder.path(), {}).status().code(), absl::StatusCode::kNotFound);
}

// A tensor does not say that it is to be applied: config.json does.
TEST(ArchitecturesListTest, ScalableSoftmaxNeedsTheKeyAndTheTensor) {
  const Folder folder;
  for (const Json& row : Golden()["rows"]) {
    if (!row["config"].contains("scalable_softmax")) continue;
    Json changed = row;
    changed["config"].erase("scalable_softmax");
    WriteTinyDirectory(changed, StoredType::kFloat32, folder.path());
    const std::string error(OpenHf(folder.path(), {}).status().message());
    EXPECT_THAT(error, testing::HasSubstr("ignoring it would change the results"));
    EXPECT_THAT(error, testing::AnyOf(testing::HasSubstr("ssmax"), testing::HasSubstr("_scaler")));
    changed = row;
    std::erase_if(changed["tensors"].get_ref<Json::array_t&>(), [](const Json& tensor) {
      const std::string name = tensor[0];
      return name.ends_with("ssmax_scale") || name.ends_with("softmax_scaler");
    });
    WriteTinyDirectory(changed, StoredType::kFloat32, folder.path());
    EXPECT_THAT(std::string(OpenHf(folder.path(), {}).status().message()),
                testing::HasSubstr("is missing, but config.json says scalable_softmax"));
  }
}

std::string RowName(const testing::TestParamInfo<size_t>& info) {
  std::string name;
  for (const char c : Golden()["rows"][info.param]["name"].get<std::string>()) {
    if (std::isalnum(static_cast<unsigned char>(c))) name += c;
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Rows, ArchitecturesTest,
                         testing::Range<size_t>(0, Golden()["rows"].size()), RowName);

TEST(ArchitecturesListTest, EveryArchitectureHasARow) {
  for (const HfArchitecture& architecture : HfArchitectures()) {
    const auto& rows = Golden()["rows"];
    EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [&](const Json& row) {
      return row["model_type"] == architecture.model_type;
    })) << architecture.model_type;
  }
}

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::string TableLine(const Json& row, const Measured& measured) {
  char line[256];
  std::snprintf(line, sizeof line, "| %s | `%s` | %.1e | %d + %d |\n",
                row["name"].get<std::string>().c_str(),
                row["model_type"].get<std::string>().c_str(), measured.difference,
                measured.positions, measured.continuation);
  return line;
}

TEST(ArchitecturesListTest, TheTableInTheDocumentationHasEveryRow) {
  const std::string text = ReadFile(kTable);
  for (const Json& row : Golden()["rows"]) {
    const std::string name = row["name"];
    EXPECT_NE(text.find("| " + name + " | `"), std::string::npos) << name;
  }
}

// Writes the table at the end, if it is asked to.
class TableWriter : public testing::Environment {
  void TearDown() override {
    const char* path = std::getenv("ACUITY_MODELS_TABLE");
    if (path == nullptr) return;
    const std::string text = ReadFile(path);
    const std::string begin = "<!-- rows: begin -->\n", end = "<!-- rows: end -->";
    const size_t first = text.find(begin), last = text.find(end);
    ASSERT_TRUE(first != std::string::npos && last != std::string::npos) << path;
    std::string lines =
        "| model | `model_type` | largest difference | positions |\n|---|---|---|---|\n";
    for (const Json& row : Golden()["rows"]) {
      lines += TableLine(row, Results().at(row["name"].get<std::string>()));
    }
    std::ofstream(path) << text.substr(0, first + begin.size()) << lines << text.substr(last);
  }
};
const testing::Environment* const kTableWriter = testing::AddGlobalTestEnvironment(new TableWriter);

}  // namespace
}  // namespace acuity::engine
