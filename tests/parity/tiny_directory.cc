#include "tests/parity/tiny_directory.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <vector>

#include "kernels/dtype.h"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;

// See make_architectures.py, Hash and Values.
class Recipe {
 public:
  Recipe(std::string_view name, float offset, int shift, int exponent)
      : offset_(offset), shift_(shift), scale_(std::ldexp(1.0f, exponent)) {
    for (const char c : name) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }

  float Next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    int64_t sum = -2 * 65536;
    for (int part = 0; part < 4; ++part) sum += static_cast<int64_t>(x >> (16 * part) & 0xffff);
    return offset_ + static_cast<float>((sum >> 9) >> shift_) * scale_;
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
  const float offset_;
  const int shift_;
  const float scale_;
};

// Of values that float16 holds exactly, none of them subnormal.
uint16_t ToFloat16(float value) {
  if (value == 0) return 0;
  int exponent = 0;
  const float mantissa = std::frexp(std::abs(value), &exponent);  // [0.5, 1)
  const auto bits = static_cast<uint16_t>(mantissa * 2048);       // [1024, 2048)
  const auto sign = static_cast<uint16_t>(value < 0 ? 0x8000 : 0);
  return static_cast<uint16_t>(sign | ((exponent + 14) << 10) | (bits & 0x3ff));
}

void Append(float value, StoredType type, std::string* data) {
  if (type == StoredType::kFloat32) {
    data->append(reinterpret_cast<const char*>(&value), sizeof value);
    return;
  }
  const uint16_t half =
      type == StoredType::kBFloat16 ? kernels::FloatToBFloat16(value) : ToFloat16(value);
  data->append(reinterpret_cast<const char*>(&half), sizeof half);
}

}  // namespace

void WriteTinyDirectory(const Json& row, StoredType type, const std::string& folder) {
  Json header = Json::object();
  std::string data;
  for (const Json& tensor : row["tensors"]) {
    const std::string name = tensor[0];
    int64_t count = 1;
    for (const int64_t size : tensor[1]) count *= size;
    Recipe recipe(name, tensor[2], tensor[3], tensor[4]);
    const size_t begin = data.size();
    for (int64_t i = 0; i < count; ++i) Append(recipe.Next(), type, &data);
    const char* dtype = type == StoredType::kFloat32    ? "F32"
                        : type == StoredType::kBFloat16 ? "BF16"
                                                        : "F16";
    header[name] = {{"dtype", dtype}, {"shape", tensor[1]}, {"data_offsets", {begin, data.size()}}};
  }
  std::ofstream(folder + "/config.json") << row["config"].dump(2);
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream file(folder + "/model.safetensors", std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << text << data;
}

}  // namespace acuity::engine
