// Writes the seeds of a fuzzer into a folder: make_corpus gguf|safetensors|template FOLDER. Used
// by scripts/fuzz.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "tests/fuzz/gguf_seeds.h"
#include "tests/fuzz/safetensors_seeds.h"
#include "tests/fuzz/template_seeds.h"

namespace {

namespace testing = acuity::engine::testing;

std::vector<std::vector<uint8_t>> TemplateSeeds() {
  std::vector<std::vector<uint8_t>> seeds;
  for (const std::string_view source : testing::kTemplateSeeds) {
    for (const std::string_view json : testing::kJsonSeeds) {
      std::vector<uint8_t> seed(source.begin(), source.end());
      seed.push_back(0);
      seed.insert(seed.end(), json.begin(), json.end());
      seeds.push_back(std::move(seed));
    }
  }
  return seeds;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string format = argc == 3 ? argv[1] : "";
  std::vector<std::vector<uint8_t>> seeds;
  if (format == "gguf") {
    seeds = testing::GgufSeeds();
  } else if (format == "safetensors") {
    seeds = testing::SafetensorsSeeds();
  } else if (format == "template") {
    seeds = TemplateSeeds();
  } else {
    std::fprintf(stderr, "usage: make_corpus gguf|safetensors|template FOLDER\n");
    return 2;
  }
  int number = 0;
  for (const std::vector<uint8_t>& seed : seeds) {
    const std::string path = std::string(argv[2]) + "/seed_" + std::to_string(number++);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.data()),
               static_cast<std::streamsize>(seed.size()));
    if (!file.flush()) {
      std::fprintf(stderr, "cannot write %s\n", path.c_str());
      return 1;
    }
  }
  return 0;
}
