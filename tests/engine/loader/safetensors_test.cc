// One file: what is read of it, every damage that is known to have killed some reader, and what the
// error says.
#include "engine/loader/safetensors.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::engine {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HeaderText;
using testing::Safetensors;
using testing::TensorText;
using testing::TwoTensors;

constexpr char kGolden[] = "tests/engine/loader/golden/types.safetensors";

// The error of parsing exactly these bytes, from a heap block of their very size so that ASan sees
// every byte too far.
std::string ErrorOf(const Bytes& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  const auto tensors = ParseSafetensors({copy.get(), bytes.size()});
  if (tensors.ok()) return "no error";
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tensors.status().message());
}

std::string ErrorOfHeader(const std::string& header, uint64_t data_bytes = 0) {
  return ErrorOf(Safetensors(header, data_bytes));
}

const SafetensorsTensor& Named(const std::vector<SafetensorsTensor>& tensors,
                               const std::string& name) {
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return tensors.front();
}

std::vector<float> ValuesOf(const SafetensorsTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements));
  const absl::Status status = ReadAsFloat(tensor, 0, tensor.elements, values.data());
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

void ExpectSame(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(actual[i])) << i;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i])) << i;
    }
  }
}

// ---- valid files ----

TEST(SafetensorsTest, ReadsWhatWasWritten) {
  const Bytes bytes = TwoTensors();
  const auto tensors = ParseSafetensors(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  const SafetensorsTensor& a = (*tensors)[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.type->name, "F32");
  EXPECT_THAT(a.shape(), ElementsAre(2));
  const SafetensorsTensor& b = (*tensors)[1];
  EXPECT_THAT(b.shape(), ElementsAre(2, 2));
  EXPECT_EQ(b.elements, 4);
  EXPECT_EQ(b.data.data(), bytes.data() + bytes.size() - 8);
  EXPECT_EQ(b.data.size(), 8u);
}

TEST(SafetensorsTest, ReadsARangeOfATensor) {
  const Bytes bytes = TwoTensors();
  const auto tensors = ParseSafetensors(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  const SafetensorsTensor& b = (*tensors)[1];
  float out[2] = {};
  ASSERT_TRUE(ReadAsFloat(b, 1, 2, out).ok());
  EXPECT_EQ(out[0], std::bit_cast<float>(0x0b0a0000u));
  EXPECT_EQ(out[1], std::bit_cast<float>(0x0d0c0000u));
  EXPECT_TRUE(ReadAsFloat(b, 4, 0, nullptr).ok());
  for (const auto& [begin, count] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 5}, {4, 1}, {-1, 1}, {0, -1}, {5, 0}, {1, INT64_MAX}}) {
    EXPECT_THAT(std::string(ReadAsFloat(b, begin, count, out).message()),
                AllOf(HasSubstr("elements ["), HasSubstr("'b', which has 4")));
  }
}

TEST(SafetensorsTest, EmptyFilesTensorsAndMetadata) {
  for (const std::string header : {"{}", "{}   ", "{ \"__metadata__\" : {} }",
                                   "{\"__metadata__\":{\"format\":\"pt\",\"\":\"\"}}"}) {
    EXPECT_EQ(ErrorOfHeader(header), "no error") << header;
  }
  // Empty tensors may share a place with each other and with the beginning of another.
  const std::string header =
      HeaderText({TensorText("x", "F32", "0", 4, 4), TensorText("c", "U8", "4", 0, 4),
                  TensorText("y", "F16", "7,0", 4, 4), TensorText("z", "BF16", "2", 4, 8),
                  TensorText("w", "I64", "0", 0, 0), TensorText("end", "BOOL", "1,0", 8, 8)});
  const Bytes bytes = Safetensors(header, 8);
  const auto tensors = ParseSafetensors(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->size(), 6u);
  EXPECT_EQ(ValuesOf(Named(*tensors, "x")).size(), 0u);
}

TEST(SafetensorsTest, NamesAreJsonStrings) {
  const Bytes bytes = Safetensors(HeaderText({TensorText("\\u00e9\\\"{", "U8", "", 0, 1)}), 1);
  const auto tensors = ParseSafetensors(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ((*tensors)[0].name, "\u00e9\"{");
  EXPECT_EQ((*tensors)[0].num_dims, 0);
  EXPECT_EQ((*tensors)[0].elements, 1);
}

// ---- types ----

class GoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(kGolden, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    auto tensors = ParseSafetensors(bytes_);
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    tensors_ = *std::move(tensors);
  }
  const SafetensorsTensor& Get(const std::string& name) { return Named(tensors_, name); }

  Bytes bytes_;
  std::vector<SafetensorsTensor> tensors_;
};

TEST_F(GoldenTest, EveryTypeThatTheirWriterKnows) {
  for (const SafetensorsType& type : SafetensorsTypes()) {
    const std::string name(type.name);
    if (name == "F4" || name.starts_with("F6") || name.ends_with("FNUZ")) continue;
    std::string lower = name == "F32" ? "scalar" : name;
    for (char& c : lower) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(Get(lower).type, &type) << name;
  }
  EXPECT_THAT(Get("f64").shape(), ElementsAre(2, 8, 17));
  EXPECT_THAT(Get("empty").shape(), ElementsAre(2, 0, 3));
  EXPECT_THAT(ValuesOf(Get("scalar")), ElementsAre(1.5f));
  EXPECT_THAT(Get("u64").shape(), ElementsAre(3, 1));
}

TEST_F(GoldenTest, Float8AndFloat64AreTorchsToTheBit) {
  for (const std::string name : {"f8_e4m3", "f8_e5m2", "f64"}) {
    SCOPED_TRACE(name);
    ExpectSame(ValuesOf(Get(name)), ValuesOf(Get(name + ".float32")));
  }
  EXPECT_EQ(Get("f8_e4m3").elements, 256);
  EXPECT_EQ(Get("f8_e5m2").elements, 256);
}

// sign * significand * 2^(exponent - bias - bits), by the definition.
float HalfByDefinition(int code, int exponent_bits, int mantissa_bits) {
  const int top = (1 << exponent_bits) - 1, bias = top / 2;
  const int exponent = code >> mantissa_bits & top, mantissa = code & ((1 << mantissa_bits) - 1);
  const double sign = code >> 15 ? -1 : 1;
  if (exponent == top) return static_cast<float>(mantissa != 0 ? NAN : sign * INFINITY);
  const int significand = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  return static_cast<float>(sign *
                            std::ldexp(significand, std::max(exponent, 1) - bias - mantissa_bits));
}

TEST_F(GoldenTest, All65536OfFloat16AndBFloat16) {
  Bytes codes;
  for (int code = 0; code < 65536; ++code) {
    codes.push_back(static_cast<uint8_t>(code & 0xff));
    codes.push_back(static_cast<uint8_t>(code >> 8));
  }
  const struct {
    std::string name;
    int exponent_bits, mantissa_bits;
  } kHalves[] = {{"f16", 5, 10}, {"bf16", 8, 7}};
  for (const auto& half : kHalves) {
    SCOPED_TRACE(half.name);
    SafetensorsTensor tensor = Get(half.name);
    tensor.elements = 65536;
    tensor.data = codes;
    const std::vector<float> values = ValuesOf(tensor);
    std::vector<float> expected;
    uint64_t checksum = 0;
    for (uint32_t code = 0; code < 65536; ++code) {
      expected.push_back(
          HalfByDefinition(static_cast<int>(code), half.exponent_bits, half.mantissa_bits));
      const uint32_t bits =
          std::isnan(values[code]) ? 0x7fc00000u : std::bit_cast<uint32_t>(values[code]);
      checksum += uint64_t{2 * code + 1} * bits;
    }
    ExpectSame(values, expected);
    uint64_t torchs = 0;
    std::memcpy(&torchs, Get(half.name + ".checksum").data.data(), sizeof(torchs));
    EXPECT_EQ(checksum, torchs);
  }
}

TEST_F(GoldenTest, WhatIsNoWeightIsRefused) {
  for (const std::string name :
       {"bool", "u8", "i8", "i16", "u16", "i32", "u32", "i64", "u64", "f8_e8m0", "c64"}) {
    float out[3];
    EXPECT_THAT(std::string(ReadAsFloat(Get(name), 0, 3, out).message()),
                AllOf(HasSubstr("'" + name + "': dtype is "), HasSubstr("F8_E4M3, F16, BF16")));
  }
}

// ---- damaged files ----

TEST(SafetensorsTest, TruncatedAtEveryByte) {
  const Bytes whole = TwoTensors();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(ErrorOf(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size))),
              "no error")
        << size;
  }
}

TEST(SafetensorsTest, OneBitFlippedAnywhereNeverCrashes) {
  const Bytes whole = TwoTensors();
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    Bytes damaged = whole;
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    ErrorOf(damaged);
  }
}

TEST(SafetensorsTest, HeaderLengths) {
  EXPECT_THAT(ErrorOf({1, 2, 3}), HasSubstr("3 bytes; the header's length alone takes 8"));
  for (const uint64_t length : {uint64_t{100'000'001}, UINT64_MAX, uint64_t{1} << 63}) {
    Bytes bytes = TwoTensors();
    std::memcpy(bytes.data(), &length, sizeof(length));
    EXPECT_THAT(ErrorOf(bytes), HasSubstr("length is " + std::to_string(length) +
                                          ", more than the limit of 100000000"));
  }
  Bytes bytes = TwoTensors();
  const uint64_t length = 100'000'000;
  std::memcpy(bytes.data(), &length, sizeof(length));
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("length is 100000000, but only"));
  EXPECT_THAT(ErrorOfHeader(""), HasSubstr("does not start with '{'"));
}

TEST(SafetensorsTest, HeadersThatAreNotJson) {
  EXPECT_THAT(ErrorOfHeader(" {}"), HasSubstr("does not start with '{'"));
  EXPECT_THAT(ErrorOfHeader("[]"), HasSubstr("does not start with '{'"));
  EXPECT_THAT(ErrorOfHeader("\xef\xbb\xbf{}"), HasSubstr("does not start with '{'"));
  EXPECT_THAT(ErrorOfHeader(std::string("{}\0", 3)), HasSubstr("a byte of 0"));
  for (const std::string header :
       {"{", "{}}", "{} {}", "{'a':1}", "{\"a\":}", "{\"__metadata__\":{\"a\":\"\xff\"}}",
        "{\"\\ud800\":{}}", "{/**/}", "{\"__metadata__\":{},}"}) {
    EXPECT_THAT(ErrorOfHeader(header), HasSubstr("not valid JSON")) << header;
  }
}

TEST(SafetensorsTest, DeepLongAndMany) {
  const std::string deep(100000, '[');
  EXPECT_THAT(ErrorOfHeader("{\"a\":" + deep), HasSubstr("nested deeper than 3 at its byte 7"));
  EXPECT_THAT(ErrorOfHeader("{\"a\":{\"shape\":[{}]}}"), HasSubstr("nested deeper than 3"));
  const std::string gap(kMaxSafetensorsTokenBytes + 1, ' ');
  const std::string longest(kMaxSafetensorsTokenBytes + 1, 'x');
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":{\"a\":\"" + longest + "\"}}"),
              HasSubstr("longer than the limit of 4194304 bytes"));
  EXPECT_THAT(ErrorOfHeader("{" + gap + "}"), HasSubstr("longer than the limit of 4194304 bytes"));
  const std::string name(kMaxSafetensorsNameBytes, 'n');
  EXPECT_EQ(ErrorOfHeader(HeaderText({TensorText(name, "U8", "", 0, 1)}), 1), "no error");
  EXPECT_THAT(ErrorOfHeader(HeaderText({TensorText(name + "n", "U8", "", 0, 1)}), 1),
              HasSubstr("a name of 257 bytes; it must have 1 to 256"));
  EXPECT_THAT(ErrorOfHeader(HeaderText({TensorText("", "U8", "", 0, 1)}), 1),
              HasSubstr("a name of 0 bytes"));
  std::string keys;
  for (uint64_t i = 0; i <= kMaxSafetensorsMetadata; ++i) {
    keys += i == 0 ? "\"" : ",\"";
    keys += std::to_string(i);
    keys += "\":\"\"";
  }
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":{" + keys + "}}"),
              HasSubstr("__metadata__ has more than the limit of 4096 keys"));
}

TEST(SafetensorsTest, AHundredThousandTensorsTakeLessThanTwoSeconds) {
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < 100'000; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".mlp.weight";
    texts.push_back(TensorText(name, "U8", "1,1", i, i + 1));
  }
  const Bytes bytes = Safetensors(HeaderText(texts), 100'000);
  const auto begin = std::chrono::steady_clock::now();
  const auto tensors = ParseSafetensors(bytes);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->size(), 100'000u);
  EXPECT_LT(seconds.count(), 2);
  while (texts.size() <= kMaxSafetensors) {
    texts.push_back(TensorText(std::to_string(texts.size()), "U8", "0", 0, 0));
  }
  EXPECT_THAT(ErrorOfHeader(HeaderText(texts), 100'000),
              HasSubstr("more than the limit of 131072"));
}

TEST(SafetensorsTest, Duplicates) {
  EXPECT_THAT(ErrorOfHeader(HeaderText({TensorText("a", "U8", "1", 0, 1),
                                        TensorText("\\u0061", "U8", "1", 1, 2)}),
                            2),
              HasSubstr("tensor 'a' occurs twice"));
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":{},\"__metadata__\":{}}"),
              HasSubstr("__metadata__ occurs twice"));
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}"),
              HasSubstr("__metadata__ key 'k' occurs twice"));
  for (const std::string field : {"\"dtype\":\"U8\"", "\"shape\":[]", "\"data_offsets\":[0,1]"}) {
    EXPECT_THAT(ErrorOfHeader("{\"a\":{" + field + "," + field + "}}", 1),
                AllOf(HasSubstr("tensor 'a': "), HasSubstr(" occurs twice")));
  }
}

TEST(SafetensorsTest, MistypedFields) {
  const auto error = [](const std::string& tensor) {
    return ErrorOfHeader("{\"a\":" + tensor + "}", 4);
  };
  EXPECT_THAT(error("1"), HasSubstr("tensor 'a': it is the number 1; it must be an object"));
  EXPECT_THAT(error("[]"), HasSubstr("it is an array; it must be an object"));
  EXPECT_THAT(error("{\"dtype\":4}"), HasSubstr("dtype is the number 4; it must be a string"));
  EXPECT_THAT(error("{\"dtype\":\"F31\"}"), HasSubstr("dtype is 'F31'; known: BOOL, F4,"));
  EXPECT_THAT(error("{\"dtype\":\"f32\"}"), HasSubstr("dtype is 'f32'"));
  EXPECT_THAT(error("{\"shape\":4}"), HasSubstr("shape is the number 4; it must be an array"));
  EXPECT_THAT(error("{\"shape\":{}}"), HasSubstr("shape is an object; it must be an array"));
  EXPECT_THAT(error("{\"shape\":[-1]}"), HasSubstr("shape holds the negative number -1"));
  EXPECT_THAT(error("{\"shape\":[1.0]}"), HasSubstr("shape holds the number 1.0"));
  EXPECT_THAT(error("{\"shape\":[1e2]}"), HasSubstr("shape holds the number 1e2"));
  EXPECT_THAT(error("{\"shape\":[true]}"), HasSubstr("shape holds a bool"));
  EXPECT_THAT(error("{\"shape\":[\"1\"]}"), HasSubstr("shape holds the string '1'"));
  EXPECT_THAT(error("{\"shape\":[null]}"), HasSubstr("shape holds null"));
  EXPECT_THAT(error("{\"shape\":[9223372036854775808]}"),
              HasSubstr("shape holds the number 9223372036854775808; it must hold integers from 0 "
                        "to 9223372036854775807"));
  EXPECT_THAT(error("{\"data_offsets\":[0,18446744073709551616]}"),
              HasSubstr("data_offsets holds the number 18446744073709551616"));
  EXPECT_THAT(error("{\"data_offsets\":[0]}"), HasSubstr("1 elements; it must have 2"));
  EXPECT_THAT(error("{\"data_offsets\":[0,1,2]}"), HasSubstr("more than 2 elements"));
  EXPECT_THAT(error("{\"device\":\"cpu\"}"), HasSubstr("unknown key 'device'"));
  EXPECT_THAT(error("{\"dtype\":\"U8\",\"shape\":[4]}"), HasSubstr("data_offsets is missing"));
  EXPECT_THAT(error("{\"dtype\":\"U8\",\"data_offsets\":[0,4]}"), HasSubstr("shape is missing"));
  EXPECT_THAT(error("{\"shape\":[],\"data_offsets\":[0,4]}"), HasSubstr("dtype is missing"));
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":[]}"), HasSubstr("is an array; it must be an obj"));
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":{\"k\":1}}"),
              HasSubstr("__metadata__ has 'k' = the number 1; it must be a string"));
  EXPECT_THAT(ErrorOfHeader("{\"__metadata__\":{\"k\":{}}}"), HasSubstr("'k' = an object"));
}

TEST(SafetensorsTest, Shapes) {
  const auto error = [](const std::string& dtype, const std::string& shape, uint64_t bytes) {
    return ErrorOfHeader(HeaderText({TensorText("a", dtype, shape, 0, bytes)}), bytes);
  };
  EXPECT_EQ(error("U8", "1,1,1,1,1,1,2,3", 6), "no error");
  EXPECT_THAT(error("U8", "1,1,1,1,1,1,1,2,3", 6), HasSubstr("more than 8 dimensions"));
  EXPECT_THAT(
      error("U8", "4294967296,4294967296", 0),
      HasSubstr("shape has more than 9223372036854775807 elements (dimension 1 = 4294967296"));
  EXPECT_THAT(error("U8", "4294967296,4294967296,0", 0), HasSubstr("elements (dimension 1"));
  EXPECT_THAT(error("F64", "9223372036854775807", 8),
              HasSubstr("more than 18446744073709551615 b"));
  EXPECT_THAT(error("F32", "3", 8),
              HasSubstr("[0, 8], 8 bytes, but 3 elements of F32 are 96 bits"));
  EXPECT_THAT(error("F32", "0", 8), HasSubstr("8 bytes, but 0 elements of F32 are 0 bits"));
  EXPECT_EQ(error("F4", "2,3", 3), "no error");
  EXPECT_EQ(error("F6_E2M3", "4", 3), "no error");
  EXPECT_THAT(error("F4", "3", 2), HasSubstr("2 bytes, but 3 elements of F4 are 12 bits"));
  EXPECT_THAT(error("F4", "3", 1), HasSubstr("1 bytes, but 3 elements of F4 are 12 bits"));
}

TEST(SafetensorsTest, Offsets) {
  const auto error = [](uint64_t begin, uint64_t end) {
    return ErrorOfHeader(HeaderText({TensorText("a", "U8", "4", begin, end)}), 4);
  };
  EXPECT_EQ(error(0, 4), "no error");
  EXPECT_THAT(error(4, 0), HasSubstr("data_offsets are [4, 0]; it must be begin <= end <= the "
                                     "data's 4 bytes"));
  EXPECT_THAT(error(1, 5), HasSubstr("[1, 5]"));
  EXPECT_THAT(error(UINT64_MAX - 3, 0), HasSubstr("begin <= end"));
  EXPECT_THAT(error(UINT64_MAX - 4, UINT64_MAX), HasSubstr("begin <= end <= the data's 4 bytes"));
}

TEST(SafetensorsTest, HolesOverlapsAndUncoveredData) {
  const auto error = [](uint64_t begin_b, uint64_t data_bytes) {
    return ErrorOfHeader(HeaderText({TensorText("b", "U8", "4", begin_b, begin_b + 4),
                                     TensorText("a", "U8", "4", 0, 4)}),
                         data_bytes);
  };
  EXPECT_EQ(error(4, 8), "no error");
  EXPECT_THAT(error(3, 7), HasSubstr("begin at 3, within tensor 'a', which ends at 4"));
  EXPECT_THAT(error(0, 4), AllOf(HasSubstr("begin at 0, within tensor"), HasSubstr("ends at 4")));
  EXPECT_THAT(error(6, 10),
              HasSubstr("tensor 'b': data_offsets begin at 6, but bytes 4 to 6 belong "
                        "to no tensor"));
  EXPECT_THAT(error(4, 9), HasSubstr("the tensors end at byte 8 of the data's 9"));
  EXPECT_THAT(ErrorOfHeader("{}", 1), HasSubstr("the tensors end at byte 0 of the data's 1"));
  EXPECT_THAT(
      ErrorOfHeader(
          HeaderText({TensorText("a", "U8", "4", 0, 4), TensorText("e", "U8", "0", 2, 2)}), 4),
      HasSubstr("tensor 'e': data_offsets begin at 2, within tensor 'a'"));
}

}  // namespace
}  // namespace acuity::engine
