// Every tensor type, value by value, against what the `gguf` Python package makes of the same
// blocks (make_dequant_golden.py; the file's format is described there).
#include "engine/loader/dequantise.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace acuity::engine {
namespace {

constexpr char kGolden[] = "tests/engine/loader/golden/dequant.bin";

struct Record {
  uint32_t type = 0, num_blocks = 0, bytes_per_block = 0, elements_per_block = 0;
  std::vector<uint8_t> blocks;
  std::vector<float> values;
};

std::vector<Record> ReadGolden() {
  std::ifstream file(kGolden, std::ios::binary);
  std::vector<Record> records;
  Record record;
  uint32_t header[4];
  while (file.read(reinterpret_cast<char*>(header), sizeof(header))) {
    record.type = header[0];
    record.num_blocks = header[1];
    record.bytes_per_block = header[2];
    record.elements_per_block = header[3];
    record.blocks.resize(size_t{header[1]} * header[2]);
    record.values.resize(size_t{header[1]} * header[3]);
    file.read(reinterpret_cast<char*>(record.blocks.data()),
              static_cast<std::streamsize>(record.blocks.size()));
    file.read(reinterpret_cast<char*>(record.values.data()),
              static_cast<std::streamsize>(record.values.size() * sizeof(float)));
    if (file) records.push_back(record);
  }
  return records;
}

// Equal bit for bit: both sides round each product and each sum to float32, in the same order.
void ExpectSameBits(const Record& record, const float* actual, const std::string& what) {
  for (size_t i = 0; i < record.values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(record.values[i]))
        << what << " element " << i << ": " << actual[i] << " instead of " << record.values[i];
  }
}

TEST(DequantiseTest, GoldenHoldsEveryTypeOnce) {
  std::multiset<uint32_t> golden, supported;
  for (const Record& record : ReadGolden()) golden.insert(record.type);
  for (const TensorType& type : SupportedTensorTypes()) supported.insert(type.id);
  EXPECT_EQ(golden, supported);
  EXPECT_EQ(supported.size(), 14u);
}

TEST(DequantiseTest, EveryTypeMatchesTheReferenceBitForBit) {
  for (const Record& record : ReadGolden()) {
    const TensorType* type = FindTensorType(record.type);
    ASSERT_NE(type, nullptr) << record.type;
    EXPECT_EQ(static_cast<uint32_t>(type->bytes_per_block), record.bytes_per_block) << type->name;
    EXPECT_EQ(static_cast<uint32_t>(type->elements_per_block), record.elements_per_block)
        << type->name;
    std::vector<float> actual(record.values.size());
    type->dequantise(record.blocks.data(), record.num_blocks, actual.data());
    ExpectSameBits(record, actual.data(), std::string(type->name));
  }
}

TEST(DequantiseTest, MisalignedBlocksAndOneBlockAtATime) {
  for (const Record& record : ReadGolden()) {
    const TensorType* type = FindTensorType(record.type);
    ASSERT_NE(type, nullptr);
    std::vector<uint8_t> shifted(record.blocks.size() + 1);
    std::copy(record.blocks.begin(), record.blocks.end(), shifted.begin() + 1);
    std::vector<float> actual(record.values.size());
    for (uint32_t i = 0; i < record.num_blocks; ++i) {
      type->dequantise(shifted.data() + 1 + size_t{i} * record.bytes_per_block, 1,
                       actual.data() + size_t{i} * record.elements_per_block);
    }
    ExpectSameBits(record, actual.data(), std::string(type->name));
  }
}

TEST(DequantiseTest, NoBlocksWritesNothing) {
  for (const TensorType& type : SupportedTensorTypes()) {
    const uint8_t blocks[1] = {0};
    float out = 17;
    type.dequantise(blocks, 0, &out);
    EXPECT_EQ(out, 17) << type.name;
  }
}

// Blocks of 0xff have NaN scales: the values are NaN, and nothing traps.
TEST(DequantiseTest, DamagedScalesAreNotFinite) {
  for (const TensorType& type : SupportedTensorTypes()) {
    const std::vector<uint8_t> block(static_cast<size_t>(type.bytes_per_block), 0xff);
    std::vector<float> out(static_cast<size_t>(type.elements_per_block));
    type.dequantise(block.data(), 1, out.data());
    for (const float value : out) EXPECT_FALSE(std::isfinite(value)) << type.name;
  }
}

// All 65,536 float16 values against arithmetic in double.
TEST(DequantiseTest, EveryHalfIsExact) {
  const TensorType* type = FindTensorType(1);
  ASSERT_EQ(type->name, "F16");
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    float actual = 0;
    type->dequantise(reinterpret_cast<const uint8_t*>(&half), 1, &actual);
    const int exponent = (half >> 10) & 0x1f;
    const int mantissa = half & 0x3ff;
    double expected = exponent == 0    ? std::ldexp(mantissa, -24)
                      : exponent == 31 ? (mantissa == 0 ? HUGE_VAL : std::nan(""))
                                       : std::ldexp(1024 + mantissa, exponent - 25);
    if ((half & 0x8000) != 0) expected = -expected;
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(actual),
                std::bit_cast<uint32_t>(static_cast<float>(expected)))
          << bits;
    }
  }
}

TEST(DequantiseTest, UnknownTypesAreNull) {
  for (const uint32_t id : {4u, 5u, 9u, 15u, 16u, 20u, 24u, 29u, 31u, 0xffffffffu}) {
    EXPECT_EQ(FindTensorType(id), nullptr) << id;
  }
}

}  // namespace
}  // namespace acuity::engine
