// A GGUF file as a model: which models are refused and why, and the default model read for real.
#include "engine/loader/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "engine/loader/gguf_checkpoint.h"
#include "engine/loader/gguf_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/gguf_builder.h"
#include "tests/engine/loader/gguf_errors.h"

namespace acuity::engine {
namespace {

using testing::Append;
using testing::Bytes;
using testing::CheckpointError;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::Says;
using testing::TinyLlama;

TEST(CheckpointTest, TinyModel) {
  const Bytes bytes = TinyLlama().Build();
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelSpec& spec = (*checkpoint)->spec();
  EXPECT_EQ(spec.display_name, "tiny");
  EXPECT_EQ(spec.num_layers, 1);
  EXPECT_EQ(spec.layers.size(), 1u);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.softmax_scale, 0.25f);
  EXPECT_EQ(spec.ropes[0].style, kernels::RopeStyle::kInterleaved);
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_TRUE(spec.ropes[0].factors.empty());
  EXPECT_EQ(spec.layers[0].policy.name, "softmax");
  EXPECT_EQ((*checkpoint)->stored_type(), "Q4_1");
  EXPECT_EQ((*checkpoint)->file_bytes(), bytes.size());
  const TokenizerSpec& tokenizer = (*checkpoint)->tokenizer();
  EXPECT_EQ(tokenizer.tokens[7], "abc");
  EXPECT_EQ(tokenizer.kinds[2], TokenKind::kControl);
  EXPECT_EQ(tokenizer.kinds[3], TokenKind::kNormal);
  EXPECT_EQ(tokenizer.bos, 1);
  EXPECT_EQ(tokenizer.unk, std::nullopt);
  EXPECT_THAT(tokenizer.end_of_generation, ElementsAre(0, 2));
  EXPECT_EQ(tokenizer.chat_template, "{{ messages }}");
}

TEST(CheckpointTest, OptionalKeysHaveDefaults) {
  GgufBuilder b = TinyLlama();
  for (const char* key :
       {"llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count",
        "llama.vocab_size", "general.name", "tokenizer.ggml.bos_token_id",
        "tokenizer.chat_template", "general.quantization_version"}) {
    b.RemoveKey(key);
  }
  b.tensor("blk.0.attn_k.weight").dims = {32, 32};
  b.tensor("blk.0.attn_v.weight").dims = {32, 32};
  const Bytes bytes = b.Build();
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelSpec& spec = (*checkpoint)->spec();
  EXPECT_EQ(spec.num_kv_heads, 2);
  EXPECT_EQ(spec.ropes[0].theta, 10000.0f);
  EXPECT_EQ(spec.ropes[0].rotary_dim, 16);
  EXPECT_EQ(spec.vocab_size, 8);
}

TEST(CheckpointTest, RequiredKeysMissing) {
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.context_length",
        "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.pre"}) {
    GgufBuilder b = TinyLlama();
    b.RemoveKey(key);
    EXPECT_THAT(CheckpointError(b), Says(key, "is missing"));
  }
}

TEST(CheckpointTest, ArchitecturesNotSupported) {
  GgufBuilder b = TinyLlama();
  b.SetString("general.architecture", "mamba");
  EXPECT_THAT(CheckpointError(b),
              Says("general.architecture", "'mamba'", "supported: llama, ", "gpt-oss"));
  b.SetString("general.architecture", "gemma3");
  EXPECT_THAT(CheckpointError(b), Says("'gemma3.block_count' is missing"));
  b = TinyLlama();
  b.SetString("general.type", "adapter");
  EXPECT_THAT(CheckpointError(b), Says("general.type", "'adapter'", "'model'"));
  b = TinyLlama();
  b.SetUint32("general.quantization_version", 1);
  EXPECT_THAT(CheckpointError(b), Says("general.quantization_version", "1", "2"));
}

TEST(CheckpointTest, BlockCount) {
  GgufBuilder b = TinyLlama();
  b.SetUint32("llama.block_count", 0);
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count' is 0", "from 1 to 1024"));
  b.SetUint32("llama.block_count", 1025);
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count' is 1025", "from 1 to 1024"));
  b.SetUint32("llama.block_count", 2);
  EXPECT_THAT(CheckpointError(b), Says("'blk.1.attn_norm.weight' is missing"));
  b.SetFloat("llama.block_count", 1);
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count'", "float32", "uint32 or uint64"));
  b.SetString("llama.block_count", "1");
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count'", "string", "uint32 or uint64"));
  b.SetNumber<int32_t>("llama.block_count", GgufType::kInt32, -1);
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count'", "int32", "uint32 or uint64"));
  b.SetInt32s("llama.block_count", {1});
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count'", "array", "uint32 or uint64"));
  b.SetNumber<uint64_t>("llama.block_count", GgufType::kUint64, UINT64_MAX);
  EXPECT_THAT(CheckpointError(b), Says("'llama.block_count' is 18446744073709551615", "1024"));
  b.SetNumber<uint64_t>("llama.block_count", GgufType::kUint64, 1);
  EXPECT_EQ(CheckpointError(b), "no error");
}

// Each integer at 0, and beyond its limit.
TEST(CheckpointTest, IntegersOutOfRange) {
  for (const char* key :
       {"llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.head_count_kv", "llama.rope.dimension_count",
        "llama.vocab_size"}) {
    for (const uint32_t number : {0u, 0x80000000u, 0xffffffffu}) {
      GgufBuilder b = TinyLlama();
      b.SetUint32(key, number);
      EXPECT_THAT(CheckpointError(b), Says(key, "is " + std::to_string(number), "it must be from"));
    }
  }
}

TEST(CheckpointTest, FloatsOutOfRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* key : {"llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"}) {
    for (const float number : {0.0f, -1.0f, nan, HUGE_VALF, -HUGE_VALF}) {
      GgufBuilder b = TinyLlama();
      b.SetFloat(key, number);
      EXPECT_THAT(CheckpointError(b), Says(key, "it must be from"));
    }
    GgufBuilder b = TinyLlama();
    b.SetUint32(key, 1);
    EXPECT_THAT(CheckpointError(b), Says(key, "uint32", "it must be float32"));
  }
}

TEST(CheckpointTest, EveryTensorMissing) {
  for (const GgufBuilder::Tensor& tensor : TinyLlama().tensors) {
    GgufBuilder b = TinyLlama();
    b.RemoveTensor(tensor.name);
    EXPECT_THAT(CheckpointError(b), Says("'" + tensor.name + "' is missing"));
  }
}

TEST(CheckpointTest, EveryTensorOfTheWrongShape) {
  for (const GgufBuilder::Tensor& tensor : TinyLlama().tensors) {
    GgufBuilder b = TinyLlama();
    b.tensor(tensor.name).dims.push_back(2);
    EXPECT_THAT(CheckpointError(b), Says("'" + tensor.name + "' has shape", "it must be"));
    b.tensor(tensor.name).dims = {64, 3};
    EXPECT_THAT(CheckpointError(b), Says("'" + tensor.name + "' has shape [64, 3, 1, 1]"));
  }
}

TEST(CheckpointTest, TensorsUnread) {
  for (const char* name : {"blk.1.attn_norm.weight", "blk.0.attn_q_norm.weight", "other.weight"}) {
    GgufBuilder b = TinyLlama();
    b.AddTensor(name, {32}, 0);
    EXPECT_THAT(CheckpointError(b), Says(name, "not part of a llama model"));
  }
  GgufBuilder b = TinyLlama();
  b.AddTensor("blk.0.attn_q.bias", {32}, 0);
  EXPECT_THAT(CheckpointError(b), Says("'blk.0.attn_k.bias' is missing"));
  b = TinyLlama();
  b.AddTensor("blk.0.attn_norm.bias", {32}, 0);
  EXPECT_THAT(CheckpointError(b), Says("'blk.0.attn_norm.bias'", "not part of a llama model"));
}

TEST(CheckpointTest, UntiedEmbeddings) {
  GgufBuilder b = TinyLlama();
  b.AddTensor("output.weight", {32, 8}, 14);
  EXPECT_THAT(CheckpointError(b), Says("'output.weight'", "Q6_K", "multiple of 256"));
  b.tensor("output.weight").type = 8;
  const Bytes bytes = b.Build();
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE((*checkpoint)->spec().tied_embeddings);
  b.tensor("output.weight").dims = {32, 7};
  EXPECT_THAT(CheckpointError(b), Says("'output.weight' has shape"));
}

TEST(CheckpointTest, RopeFactors) {
  GgufBuilder b = TinyLlama();
  b.AddTensor("rope_freqs.weight", {8}, 0);
  Bytes bytes = b.Build();
  const float factors[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  uint8_t* const data = bytes.data() + bytes.size() - sizeof(factors);
  std::memcpy(data, factors, sizeof(factors));
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->spec().ropes[0].factors, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  for (const float bad : {0.0f, -1.0f, HUGE_VALF, std::nanf("")}) {
    std::memcpy(data + 12, &bad, sizeof(bad));
    checkpoint = OpenGguf(bytes);
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_THAT(std::string(checkpoint.status().message()),
                Says("'rope_freqs.weight'", "element 3", "positive and finite"));
  }
  b.tensor("rope_freqs.weight").dims = {16};
  EXPECT_THAT(CheckpointError(b), Says("'rope_freqs.weight' has shape [16,", "must be [8,"));
  b.tensor("rope_freqs.weight").dims = {8};
  b.tensor("rope_freqs.weight").type = 1;
  EXPECT_THAT(CheckpointError(b), Says("'rope_freqs.weight'", "F16", "F32"));
}

TEST(CheckpointTest, TokenizerThatContradictsItself) {
  GgufBuilder b = TinyLlama();
  b.SetUint32("llama.vocab_size", 9);
  EXPECT_THAT(CheckpointError(b), Says("llama.vocab_size is 9", "8 elements"));
  b = TinyLlama();
  b.SetInt32s("tokenizer.ggml.token_type", {3, 3, 3, 1, 1, 1, 1});
  EXPECT_THAT(CheckpointError(b), Says("tokenizer.ggml.token_type", "7 elements", "8"));
  for (const int32_t kind : {0, 7, -1}) {
    b.SetInt32s("tokenizer.ggml.token_type", {3, 3, 3, 1, 1, 1, 1, kind});
    EXPECT_THAT(CheckpointError(b),
                Says("element 7", "token_type", std::to_string(kind), "from 1 to 6"));
  }
  b = TinyLlama();
  b.SetInt32s("tokenizer.ggml.tokens", {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_THAT(CheckpointError(b), Says("tokenizer.ggml.tokens", "int32", "must be string"));
  b = TinyLlama();
  b.SetStrings("tokenizer.ggml.tokens", {});
  EXPECT_THAT(CheckpointError(b), Says("tokenizer.ggml.tokens", "0 elements"));
  b = TinyLlama();
  b.SetStrings("tokenizer.ggml.merges", {"a b", std::string(kMaxMergeBytes + 1, 'a')});
  EXPECT_THAT(CheckpointError(b), Says("element 1", "merges", "8194", "8193"));
}

TEST(CheckpointTest, TokenIdsOutOfRange) {
  for (const char* key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                          "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
                          "tokenizer.ggml.eot_token_id"}) {
    for (const uint32_t id : {8u, 0xffffffffu}) {
      GgufBuilder b = TinyLlama();
      b.SetUint32(key, id);
      EXPECT_THAT(CheckpointError(b), Says(key, std::to_string(id), "from 0 to 7"));
    }
  }
  GgufBuilder b = TinyLlama();
  b.RemoveKey("tokenizer.ggml.bos_token_id");
  b.SetBool("tokenizer.ggml.add_bos_token", 1);
  EXPECT_THAT(CheckpointError(b), Says("add_bos_token", "bos_token_id is missing"));
}

TEST(CheckpointTest, VocabularyTooLarge) {
  GgufBuilder b = TinyLlama();
  b.SetStrings("tokenizer.ggml.tokens", std::vector<std::string>(kMaxVocabulary + 1));
  EXPECT_THAT(CheckpointError(b), Says("tokenizer.ggml.tokens", "524289", "524288"));
  b = TinyLlama();
  b.SetStrings("tokenizer.ggml.merges", std::vector<std::string>(kMaxMerges + 1));
  EXPECT_THAT(CheckpointError(b), Says("tokenizer.ggml.merges", "1048577", "1048576"));
  b = TinyLlama();
  b.SetString("tokenizer.chat_template", std::string(kMaxChatTemplateBytes + 1, 'x'));
  EXPECT_THAT(CheckpointError(b), Says("tokenizer.chat_template", "1048577", "1048576"));
}

TEST(CheckpointTest, ReadRows) {
  const Bytes bytes = TinyLlama().Build();
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Checkpoint::TensorInfo* info = (*checkpoint)->Find("blk.0.attn_k.weight");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->rows, 16);
  EXPECT_EQ(info->columns, 32);
  EXPECT_EQ(info->type, "Q4_1");
  EXPECT_EQ((*checkpoint)->Find("nothing"), nullptr);

  std::vector<float> all(16 * 32), part(2 * 32 + 1, 17.0f);
  ASSERT_TRUE((*checkpoint)->ReadRows(*info, 0, 16, all.data()).ok());
  ASSERT_TRUE((*checkpoint)->ReadRows(*info, 14, 2, part.data()).ok());
  EXPECT_TRUE(std::equal(part.begin(), part.end() - 1, all.begin() + 14 * 32));
  EXPECT_EQ(part.back(), 17.0f);  // not a float too many
  EXPECT_TRUE((*checkpoint)->ReadRows(*info, 16, 0, part.data()).ok());
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 17},
                                     {16, 1},
                                     {-1, 1},
                                     {0, -1},
                                     {1, kMax},
                                     {kMax, 1},
                                     {kMax, kMax}}) {
    EXPECT_EQ((*checkpoint)->ReadRows(*info, begin, count, part.data()).code(),
              absl::StatusCode::kInvalidArgument);
  }
  const Checkpoint::TensorInfo stranger = {"nothing", "F32", 1, 1};
  EXPECT_FALSE((*checkpoint)->ReadRows(stranger, 0, 1, part.data()).ok());
}

// Files, rather than bytes.
class CheckpointFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/checkpoint_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const Bytes& bytes) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  static absl::Status Open(const std::string& path) { return Checkpoint::Open(path).status(); }

  std::string folder_;
};

TEST_F(CheckpointFileTest, OpensAndStaysMapped) {
  const std::string path = Write("tiny.gguf", TinyLlama().Build());
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::filesystem::remove(path);
  std::vector<float> row(32);
  EXPECT_TRUE(
      (*checkpoint)->ReadRows(*(*checkpoint)->Find("output_norm.weight"), 0, 1, row.data()).ok());
}

TEST_F(CheckpointFileTest, NoSuchFile) {
  const absl::Status status = Open(folder_ + "/none.gguf");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), Says("none.gguf"));
}

TEST_F(CheckpointFileTest, EmptyFile) {
  const absl::Status status = Open(Write("empty.gguf", {}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), Says("empty.gguf is empty"));
}

TEST_F(CheckpointFileTest, DirectoryWithoutAModel) {
  const absl::Status status = Open(folder_);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), Says("is a directory without config.json"));
}

TEST_F(CheckpointFileTest, FifoDoesNotBlock) {
  const std::string path = folder_ + "/fifo.gguf";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const absl::Status status = Open(path);  // nobody ever writes to it
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), Says("a FIFO"));
}

TEST_F(CheckpointFileTest, Device) {
  EXPECT_THAT(std::string(Open("/dev/zero").message()), Says("a device"));
}

TEST_F(CheckpointFileTest, OtherFormatsNameTheFile) {
  const absl::Status status = Open(Write("model.bin", Bytes{0x80, 2, 'c', 'o', 's', '\n'}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), Says("model.bin", "does not start with \"GGUF\""));
}

// Anonymous memory of this process, in bytes: what a checkpoint costs besides the mapped file.
int64_t AnonymousBytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("RssAnon:")) return std::atoll(line.c_str() + 8) * 1024;
  }
  return 0;
}

// The files that cost most: full vocabulary and merges, with tokens of one byte or just too long
// for a std::string's own buffer.
TEST(CheckpointTest, MemoryIsBounded) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have a heap of their own";
#endif
  for (const size_t length : {size_t{1}, size_t{16}}) {
    GgufBuilder b = TinyLlama();
    b.SetStrings("tokenizer.ggml.tokens",
                 std::vector<std::string>(kMaxVocabulary, std::string(length, 'x')));
    b.SetInt32s("tokenizer.ggml.token_type", std::vector<int32_t>(kMaxVocabulary, 1));
    b.SetStrings("tokenizer.ggml.merges",
                 std::vector<std::string>(
                     kMaxMerges, std::string(length, 'x') + " " + std::string(length, 'x')));
    b.SetUint32("llama.vocab_size", static_cast<uint32_t>(kMaxVocabulary));
    b.tensor("token_embd.weight").dims[1] = kMaxVocabulary;
    Bytes bytes = b.Build();
    bytes.resize(bytes.size() + kMaxVocabulary * 34 + 4096);
    const int64_t before = AnonymousBytes();
    const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
    EXPECT_LE(AnonymousBytes() - before, static_cast<int64_t>(bytes.size()) + (64 << 20));
    EXPECT_LE(AnonymousBytes() - before, int64_t{112} << 20);  // 48 MB of strings, 32 or 64 of text
  }
}

// The default model, as scripts/setup fetched it.
std::string DefaultModelPath() {
  const char* deps = std::getenv("ACUITY_DEPS");
  const char* home = std::getenv("HOME");
  const std::string base = deps != nullptr
                               ? std::string(deps)
                               : std::string(home == nullptr ? "" : home) + "/.cache/acuity";
  return base + "/models/smollm2-135m-instruct-q4_1.gguf";
}

class DefaultModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = DefaultModelPath();
    ASSERT_TRUE(std::filesystem::exists(path)) << "no " << path << ": run scripts/setup";
    absl::StatusOr<std::unique_ptr<Checkpoint>> opened = Checkpoint::Open(path);
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = std::move(*opened);
  }
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(DefaultModelTest, Spec) {
  const ModelSpec& spec = checkpoint_->spec();
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.num_layers, 30);
  EXPECT_EQ(spec.layers.size(), 30u);
  EXPECT_EQ(spec.hidden_size, 576);
  EXPECT_EQ(spec.num_heads, 9);
  EXPECT_EQ(spec.num_kv_heads, 3);
  EXPECT_EQ(spec.head_dim, 64);
  EXPECT_EQ(spec.ffn_size, 1536);
  EXPECT_EQ(spec.vocab_size, 49152);
  EXPECT_EQ(spec.max_context, 8192);
  EXPECT_EQ(spec.norm_epsilon, 1e-5f);
  EXPECT_EQ(spec.ropes[0].theta, 100000.0f);
  EXPECT_EQ(spec.ropes[0].rotary_dim, 64);
  EXPECT_EQ(spec.ropes[0].style, kernels::RopeStyle::kInterleaved);
  EXPECT_EQ(spec.softmax_scale, 0.125f);
  EXPECT_EQ(spec.attention_softcap, 0.0f);
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_EQ(checkpoint_->stored_type(), "Q4_1");
  EXPECT_EQ(checkpoint_->file_bytes(), 98362432u);
  EXPECT_EQ(checkpoint_->tensors().size(), 272u);
}

TEST_F(DefaultModelTest, Tokenizer) {
  const TokenizerSpec& tokenizer = checkpoint_->tokenizer();
  EXPECT_TRUE(tokenizer.byte_level);
  EXPECT_EQ(tokenizer.pre_tokenizer.size(), 2u);
  EXPECT_EQ(tokenizer.tokens.size(), 49152u);
  EXPECT_EQ(tokenizer.kinds.size(), 49152u);
  EXPECT_EQ(tokenizer.merges.size(), 48900u);
  EXPECT_EQ(tokenizer.tokens[tokenizer.merges[2].left], "i");
  EXPECT_EQ(tokenizer.tokens[tokenizer.merges[2].right], "n");
  EXPECT_EQ(tokenizer.bos, 1);
  EXPECT_EQ(tokenizer.eos, 2);
  EXPECT_EQ(tokenizer.unk, 0);
  EXPECT_EQ(tokenizer.pad, 2);
  EXPECT_THAT(tokenizer.end_of_generation, ElementsAre(0, 2));
  EXPECT_TRUE(tokenizer.prefix.empty());
  EXPECT_THAT(tokenizer.chat_template, HasSubstr("<|im_start|>"));
}

// Prints what opening and dequantising cost; every weight must be finite.
TEST_F(DefaultModelTest, EveryWeightIsFinite) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  const Clock::time_point open = Clock::now();
  ASSERT_TRUE(Checkpoint::Open(DefaultModelPath()).ok());
  const double open_s = seconds(open);
  constexpr int64_t kRows = 64;
  double dequantise_s = 0;
  int64_t weights = 0;
  std::vector<float> rows;
  for (const Checkpoint::TensorInfo& info : checkpoint_->tensors()) {
    rows.resize(static_cast<size_t>(kRows * info.columns));
    for (int64_t begin = 0; begin < info.rows; begin += kRows) {
      const int64_t count = std::min(kRows, info.rows - begin);
      const Clock::time_point start = Clock::now();
      ASSERT_TRUE(checkpoint_->ReadRows(info, begin, count, rows.data()).ok());
      dequantise_s += seconds(start);
      weights += count * info.columns;
      for (int64_t i = 0; i < count * info.columns; ++i) {
        ASSERT_TRUE(std::isfinite(rows[static_cast<size_t>(i)])) << info.name;
      }
    }
  }
  EXPECT_EQ(weights, 134515008);
  std::printf("open %.3f s, dequantise %.3f s for %lld weights\n", open_s, dequantise_s,
              static_cast<long long>(weights));
}

}  // namespace
}  // namespace acuity::engine
