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
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "engine/loader/gguf_architectures.h"
#include "engine/loader/gguf_checkpoint.h"
#include "engine/loader/hf_architectures.h"
#include "engine/loader/hf_checkpoint.h"
#include "tests/parity/golden_file.h"
#include "tests/parity/golden_model.h"
#include "tests/parity/tiny_directory.h"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;

constexpr const char* kTable = "docs/models.md";

const Json& Golden() { return ArchitecturesGolden(); }

Results& Measurements() {
  static auto* const results = new Results;
  return *results;
}
// The same rows from GGUF files.
Results& GgufMeasurements() {
  static auto* const results = new Results;
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
  Measurements()[name()] = CompareWithGolden(row(), *checkpoint);
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

// ---- the same from GGUF files that llama.cpp's converter wrote ----

constexpr const char* kGgufEnding = ".gguf.gz";

std::string GgufFileOf(const Json& row) {
  return "gguf/" + row["name"].get<std::string>() + kGgufEnding;
}

std::vector<size_t> RowsWithGguf() {
  std::vector<size_t> rows;
  for (size_t i = 0; i < Golden()["rows"].size(); ++i) {
    if (std::filesystem::exists(kGoldenFolder + GgufFileOf(Golden()["rows"][i]))) rows.push_back(i);
  }
  return rows;
}

std::span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class GgufArchitecturesTest : public testing::TestWithParam<size_t> {
 protected:
  const Json& row() const { return Golden()["rows"][GetParam()]; }
};

TEST_P(GgufArchitecturesTest, MatchesTransformers) {
  const std::string bytes = ReadGoldenBytes(GgufFileOf(row()));
  const auto checkpoint = OpenGguf(BytesOf(bytes));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  GgufMeasurements()[row()["name"]] = CompareWithGolden(row(), **checkpoint);
}

TEST_P(GgufArchitecturesTest, EveryTensorIsNeeded) {
  const std::string bytes = ReadGoldenBytes(GgufFileOf(row()));
  const auto file = ParseGguf(BytesOf(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  for (const GgufTensor& tensor : file->tensors) {
    std::string changed = bytes;
    changed[static_cast<size_t>(tensor.name.data() - bytes.data())] = 'X';
    EXPECT_THAT(std::string(OpenGguf(BytesOf(changed)).status().message()),
                testing::AnyOf(testing::HasSubstr("is missing"), testing::HasSubstr("has shape"),
                               testing::HasSubstr("is not part of a"),
                               testing::HasSubstr("is not known here")))
        << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, GgufArchitecturesTest, testing::ValuesIn(RowsWithGguf()), RowName);

// ---- hidden states, for embeddings ----

TEST(ArchitecturesListTest, HiddenStatesMatchTransformers) {
  const Json golden = ReadGolden("embeddings.json.gz");
  const Folder folder;
  int compared = 0;
  for (const Json& row : Golden()["rows"]) {
    if (!golden["hidden"].contains(row["name"])) continue;
    const Json& expected = golden["hidden"][row["name"].get<std::string>()];
    WriteTinyDirectory(row, StoredType::kFloat32, folder.path());
    const auto checkpoint = OpenHf(folder.path(), {});
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const std::vector<int32_t> prompt = row["prompt"];
    const auto states = HiddenStates(**checkpoint, prompt, prompt.size());
    EXPECT_EQ(HiddenStates(**checkpoint, prompt, 13), states);  // to the bit
    ASSERT_EQ(states.size(), expected.size());
    double largest = 0;
    for (size_t i = 0; i < states.size(); ++i) {
      if (i % 3 == 0) continue;  // logits
      ASSERT_EQ(states[i].size(), expected[i].size());
      for (size_t d = 0; d < states[i].size(); ++d) {
        const double want = expected[i][d].get<double>() * 1e-6;
        largest = std::max(largest, std::abs(states[i][d] - want) / std::max(1.0, std::abs(want)));
      }
    }
    std::printf("%s: largest |difference of a hidden state| %.1e\n",
                row["name"].get<std::string>().c_str(), largest);
    EXPECT_LE(largest, 2e-4) << row["name"];
    ++compared;
  }
  EXPECT_EQ(compared, static_cast<int>(golden["hidden"].size()));
}

TEST(ArchitecturesListTest, EveryGgufArchitectureHasAFile) {
  std::set<std::string> names;
  for (const size_t i : RowsWithGguf()) {
    const std::string bytes = ReadGoldenBytes(GgufFileOf(Golden()["rows"][i]));
    const auto checkpoint = OpenGguf(BytesOf(bytes));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    names.insert((*checkpoint)->spec().architecture);
  }
  std::set<std::string> known;
  for (const GgufArchitecture& one : GgufArchitectures()) known.emplace(one.name);
  EXPECT_EQ(names, known);
  const std::filesystem::directory_iterator files(std::string(kGoldenFolder) + "gguf");
  EXPECT_EQ(static_cast<size_t>(std::distance(begin(files), end(files))), RowsWithGguf().size());
}

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
  char line[256], gguf[16] = "";
  const auto from_gguf = GgufMeasurements().find(row["name"].get<std::string>());
  if (from_gguf != GgufMeasurements().end()) {
    std::snprintf(gguf, sizeof gguf, "%.1e", from_gguf->second.difference);
  }
  std::snprintf(line, sizeof line, "| %s | `%s` | %.1e | %s | %d + %d |\n",
                row["name"].get<std::string>().c_str(),
                row["model_type"].get<std::string>().c_str(), measured.difference, gguf,
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
        "| model | `model_type` | largest difference | from GGUF | positions "
        "|\n|---|---|---|---|---|\n";
    for (const Json& row : Golden()["rows"]) {
      lines += TableLine(row, Measurements().at(row["name"].get<std::string>()));
    }
    std::ofstream(path) << text.substr(0, first + begin.size()) << lines << text.substr(last);
  }
};
const testing::Environment* const kTableWriter = testing::AddGlobalTestEnvironment(new TableWriter);

}  // namespace
}  // namespace acuity::engine
