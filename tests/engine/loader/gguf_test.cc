// The container: every damaged file that is known to have killed some reader, and what the error
// says.
#include "engine/loader/gguf.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/gguf_builder.h"
#include "tests/engine/loader/gguf_errors.h"

namespace acuity::engine {
namespace {

using testing::Append;
using testing::AppendString;
using testing::Bytes;
using testing::GgufBuilder;
using testing::Says;
using testing::TinyLlama;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();

// The error of parsing exactly these bytes, from a heap block of their very size so that ASan sees
// every byte too far.
std::string ErrorOf(const Bytes& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  const absl::StatusOr<GgufFile> file = ParseGguf({copy.get(), bytes.size()});
  if (file.ok()) return "no error";
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(file.status().message());
}

std::string ErrorOf(const GgufBuilder& builder) { return ErrorOf(builder.Build()); }

TEST(GgufTest, ReadsWhatTheBuilderWrote) {
  const Bytes bytes = TinyLlama().Build();
  EXPECT_LT(bytes.size(), 8192u);
  const absl::StatusOr<GgufFile> file = ParseGguf(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->version, 3u);
  EXPECT_EQ(file->alignment, 32u);
  EXPECT_EQ(file->tensors.size(), 11u);
  const GgufTensor* tensor = file->FindTensor("blk.0.attn_k.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->type->name, "Q4_1");
  EXPECT_EQ(tensor->num_dims, 2);
  EXPECT_EQ(tensor->dims[0], 32);
  EXPECT_EQ(tensor->dims[1], 16);
  EXPECT_EQ(tensor->data.size(), 16u * 20u);
  EXPECT_EQ(file->FindTensor("blk.0.attn_k"), nullptr);
  const GgufValue* merges = file->FindValue("tokenizer.ggml.merges");
  ASSERT_NE(merges, nullptr);
  ASSERT_EQ(merges->count, 2u);
  GgufStringWalker walker(*merges);
  EXPECT_EQ(walker.Next(), "a b");
  EXPECT_EQ(walker.Next(), "ab c");
}

TEST(GgufTest, Version2AndOtherAlignments) {
  for (const uint32_t alignment : {8u, 64u, 4096u, 65536u}) {
    GgufBuilder b = TinyLlama();
    b.version = 2;
    b.alignment = alignment;
    b.SetUint32("general.alignment", alignment);
    const Bytes bytes = b.Build();
    const absl::StatusOr<GgufFile> file = ParseGguf(bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->alignment, alignment);
  }
}

TEST(GgufTest, EveryValueTypeIsSkippedRight) {
  GgufBuilder b = TinyLlama();
  b.SetNumber<uint8_t>("x.u8", GgufType::kUint8, 1);
  b.SetNumber<int8_t>("x.i8", GgufType::kInt8, 1);
  b.SetNumber<uint16_t>("x.u16", GgufType::kUint16, 1);
  b.SetNumber<int16_t>("x.i16", GgufType::kInt16, 1);
  b.SetNumber<int32_t>("x.i32", GgufType::kInt32, 1);
  b.SetNumber<uint64_t>("x.u64", GgufType::kUint64, 1);
  b.SetNumber<int64_t>("x.i64", GgufType::kInt64, 1);
  b.SetNumber<double>("x.f64", GgufType::kFloat64, 1);
  b.SetStrings("x.none", {});
  b.SetStrings("x.empty", {"", ""});
  b.SetString("x.text", "");
  EXPECT_EQ(ErrorOf(b), "no error");
}

TEST(GgufTest, NotAGgufFile) {
  EXPECT_THAT(ErrorOf(Bytes{'P', 'K', 3, 4, 0, 0, 0, 0}), Says("does not start with \"GGUF\""));
  EXPECT_THAT(ErrorOf(Bytes{'G', 'G'}), Says("does not start with \"GGUF\""));
  EXPECT_THAT(ErrorOf(Bytes()), Says("does not start with \"GGUF\""));
}

TEST(GgufTest, VersionsNotSupported) {
  GgufBuilder b = TinyLlama();
  for (const uint32_t version : {0u, 1u, 4u, 0xffffffffu}) {
    b.version = version;
    EXPECT_THAT(ErrorOf(b), Says("version " + std::to_string(version), "supported: 2, 3"));
  }
  b.version = 3u << 24;
  EXPECT_THAT(ErrorOf(b), Says("big-endian"));
}

TEST(GgufTest, KeyCountWraps) {
  GgufBuilder b = TinyLlama();
  for (const uint64_t count : {kHuge, kHuge / 14 + 1, uint64_t{1} << 60, kMaxGgufKeys + 1}) {
    b.num_keys = count;
    EXPECT_THAT(ErrorOf(b), Says("key count is " + std::to_string(count), "limit of 4096"));
  }
  b.num_keys = kMaxGgufKeys;  // within the limit, but the file is too short for so many
  EXPECT_THAT(ErrorOf(b), Says("key count is 4096", "left for it"));
}

TEST(GgufTest, TensorCountWraps) {
  GgufBuilder b = TinyLlama();
  for (const uint64_t count : {kHuge, uint64_t{1} << 61, kMaxGgufTensors + 1}) {
    b.num_tensors = count;
    EXPECT_THAT(ErrorOf(b), Says("tensor count is " + std::to_string(count), "limit of 16384"));
  }
  b.num_tensors = kMaxGgufTensors;
  EXPECT_THAT(ErrorOf(b), Says("tensor count is 16384", "left for it"));
}

TEST(GgufTest, CountsOffByOne) {
  GgufBuilder b = TinyLlama();
  b.num_keys = b.entries.size() + 1;
  EXPECT_NE(ErrorOf(b), "no error");
  b.num_keys = b.entries.size() - 1;
  EXPECT_NE(ErrorOf(b), "no error");
  b = TinyLlama();
  b.num_tensors = b.tensors.size() + 1;
  EXPECT_NE(ErrorOf(b), "no error");
}

TEST(GgufTest, TruncationAtEveryByte) {
  const Bytes bytes = TinyLlama().Build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_NE(ErrorOf(Bytes(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size))),
              "no error")
        << size;
  }
  EXPECT_EQ(ErrorOf(bytes), "no error");
}

TEST(GgufTest, StringLengths) {
  for (const uint64_t length : {kHuge, kHuge - 7, uint64_t{1} << 63, uint64_t{100000}}) {
    Bytes value;
    Append(length, &value);
    GgufBuilder b = TinyLlama();
    b.SetRaw("general.name", GgufType::kString, value);
    EXPECT_THAT(ErrorOf(b), Says("general.name", std::to_string(length)));

    value.clear();  // and as an array's element
    Append(static_cast<uint32_t>(GgufType::kString), &value);
    Append<uint64_t>(2, &value);
    AppendString("a", &value);
    Append(length, &value);
    b = TinyLlama();
    b.SetRaw("tokenizer.ggml.tokens", GgufType::kArray, value);
    EXPECT_THAT(ErrorOf(b), Says("tokenizer.ggml.tokens", std::to_string(length)));
  }
}

TEST(GgufTest, KeyAndTensorNameLengths) {
  GgufBuilder b = TinyLlama();
  b.entries[0].key = std::string(kMaxGgufKeyBytes, 'k');
  EXPECT_EQ(ErrorOf(b), "no error");
  b.entries[0].key += 'k';
  EXPECT_THAT(ErrorOf(b), Says("key 0", "257", "limit of 256"));
  b.entries[0].key.clear();
  EXPECT_THAT(ErrorOf(b), Says("key 0", "empty"));

  b = TinyLlama();
  b.tensors[0].name = std::string(kMaxGgufTensorNameBytes, 't');
  EXPECT_EQ(ErrorOf(b), "no error");
  b.tensors[0].name += 't';
  EXPECT_THAT(ErrorOf(b), Says("tensor 0", "65", "limit of 64"));
  b.tensors[0].name.clear();
  EXPECT_THAT(ErrorOf(b), Says("tensor 0", "empty"));
}

TEST(GgufTest, ArrayCountsWrap) {
  for (const GgufType type :
       {GgufType::kUint8, GgufType::kInt32, GgufType::kString, GgufType::kFloat64}) {
    for (const uint64_t count : {kHuge, kHuge / 8 + 1, uint64_t{1} << 62, uint64_t{100000}}) {
      Bytes value;
      Append(static_cast<uint32_t>(type), &value);
      Append(count, &value);
      GgufBuilder b = TinyLlama();
      b.SetRaw("tokenizer.ggml.tokens", GgufType::kArray, value);
      EXPECT_THAT(ErrorOf(b), Says("tokenizer.ggml.tokens", std::to_string(count)));
    }
  }
}

TEST(GgufTest, NestedArrays) {
  Bytes value;
  Append(static_cast<uint32_t>(GgufType::kArray), &value);
  Append<uint64_t>(1, &value);
  Append(static_cast<uint32_t>(GgufType::kUint8), &value);
  Append<uint64_t>(0, &value);
  GgufBuilder b = TinyLlama();
  b.SetRaw("x", GgufType::kArray, value);
  EXPECT_THAT(ErrorOf(b), Says("'x'", "array of arrays"));
}

TEST(GgufTest, ValueTypesUnknown) {
  GgufBuilder b = TinyLlama();
  b.entries[0].type = 13;
  EXPECT_THAT(ErrorOf(b), Says(b.entries[0].key, "value type 13", "12"));
}

TEST(GgufTest, BoolsThatAreNeither) {
  GgufBuilder b = TinyLlama();
  b.SetBool("tokenizer.ggml.add_bos_token", 2);
  EXPECT_THAT(ErrorOf(b), Says("add_bos_token", "bool value 2", "0 or 1"));
}

TEST(GgufTest, Alignment) {
  GgufBuilder b = TinyLlama();
  for (const uint32_t alignment : {0u, 1u, 4u, 13u, 24u, 48u, 131072u, 0x80000000u, 0xffffffffu}) {
    b.SetUint32("general.alignment", alignment);
    EXPECT_THAT(ErrorOf(b),
                Says("general.alignment is " + std::to_string(alignment), "8 to 65536"));
  }
  b.SetNumber<uint64_t>("general.alignment", GgufType::kUint64, 32);
  EXPECT_THAT(ErrorOf(b), Says("general.alignment", "uint64", "must be uint32"));
  b.SetString("general.alignment", "32");
  EXPECT_THAT(ErrorOf(b), Says("general.alignment", "string", "must be uint32"));
}

TEST(GgufTest, DuplicateKeys) {
  GgufBuilder b = TinyLlama();
  b.entries.push_back(b.entries.front());
  EXPECT_THAT(ErrorOf(b), Says("'general.architecture' occurs twice"));
}

TEST(GgufTest, DuplicateTensors) {
  GgufBuilder b = TinyLlama();
  b.AddTensor("output_norm.weight", {32}, 0);
  EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight' occurs twice"));
}

TEST(GgufTest, DimsZero) {
  for (const std::vector<uint64_t>& dims :
       {std::vector<uint64_t>{0}, {0, 32}, {32, 0}, {32, 1, 1, 0}}) {
    GgufBuilder b = TinyLlama();
    b.tensor("output_norm.weight").dims = dims;
    EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", "= 0", "must be from 1"));
  }
}

TEST(GgufTest, DimsProductWraps) {
  const uint64_t two32 = uint64_t{1} << 32;
  for (const std::vector<uint64_t>& dims : {std::vector<uint64_t>{two32, two32},
                                            {two32, two32, two32, two32},
                                            {uint64_t{1} << 62, 2},
                                            {32, uint64_t{1} << 59, 2}}) {
    GgufBuilder b = TinyLlama();
    b.tensor("output_norm.weight").dims = dims;
    EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", "more than", "elements"));
  }
  for (const uint64_t dim : {kHuge, uint64_t{1} << 63}) {
    GgufBuilder b = TinyLlama();
    b.tensor("output_norm.weight").dims = {dim};
    EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", std::to_string(dim)));
  }
}

TEST(GgufTest, ByteCountWraps) {
  GgufBuilder b = TinyLlama();
  b.tensor("output_norm.weight").dims = {uint64_t{1} << 62};  // * 4 bytes = 2^64
  EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", "4611686018427387904", "bytes"));
}

TEST(GgufTest, DimensionCounts) {
  GgufBuilder b = TinyLlama();
  b.tensor("output_norm.weight").dims = {};
  EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", "0 dimensions", "1 to 4"));
  b.tensor("output_norm.weight").dims = {32, 1, 1, 1, 1};
  EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", "5 dimensions", "1 to 4"));
}

TEST(GgufTest, RowsThatAreNoWholeBlocks) {
  GgufBuilder b = TinyLlama();
  b.tensor("blk.0.attn_q.weight").dims = {48, 32};
  EXPECT_THAT(ErrorOf(b), Says("'blk.0.attn_q.weight'", "48", "Q4_1", "multiple of 32"));
}

TEST(GgufTest, TensorTypesUnknown) {
  for (const uint32_t type : {4u, 9u, 16u, 40u, 0xffffffffu}) {
    GgufBuilder b = TinyLlama();
    b.tensor("blk.0.attn_q.weight").type = type;
    EXPECT_THAT(ErrorOf(b), Says("'blk.0.attn_q.weight'", "type " + std::to_string(type),
                                 "supported: F32 (0), ", "Q6_K (14)"));
  }
}

TEST(GgufTest, OffsetsPastTheFile) {
  for (const uint64_t offset : {kHuge - 31, kHuge - 127, uint64_t{1} << 63, uint64_t{1} << 20}) {
    GgufBuilder b = TinyLlama();
    b.tensor("output_norm.weight").offset = offset;
    EXPECT_THAT(ErrorOf(b),
                Says("'output_norm.weight'", "offset " + std::to_string(offset), "beyond"));
  }
  GgufBuilder b = TinyLlama();  // by its size, not by its offset
  b.tensor("output_norm.weight").dims = {64};
  Bytes bytes = b.Build();
  bytes.resize(bytes.size() - 1);
  EXPECT_THAT(ErrorOf(bytes), Says("'output_norm.weight'", "256 bytes", "beyond"));
}

TEST(GgufTest, OffsetsNotAligned) {
  GgufBuilder b = TinyLlama();
  b.tensor("output_norm.weight").offset = 4;
  EXPECT_THAT(ErrorOf(b), Says("'output_norm.weight'", "offset 4", "alignment 32"));
}

TEST(GgufTest, OverlappingTensors) {
  GgufBuilder b = TinyLlama();
  b.tensor("blk.0.ffn_norm.weight").offset = 32;
  EXPECT_THAT(ErrorOf(b), Says("'blk.0.ffn_norm.weight'", "overlaps", "'token_embd.weight'"));
  b.tensor("blk.0.ffn_norm.weight").offset = 0;  // the very same place
  EXPECT_THAT(ErrorOf(b), Says("overlaps"));
}

TEST(GgufTest, NamesAreEscapedInErrors) {
  GgufBuilder b = TinyLlama();
  b.tensors[0].name = std::string("\n\"\x1b[31m\xff\0", 9);
  b.tensors[0].type = 99;
  const std::string error = ErrorOf(b);
  EXPECT_THAT(error, Says("\\n"));
  for (const char c : error) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << error;
}

}  // namespace
}  // namespace acuity::engine
