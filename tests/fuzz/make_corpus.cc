// Writes the seeds of a fuzzer into a folder: make_corpus gguf|safetensors FOLDER. Used by
// scripts/fuzz.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "tests/fuzz/gguf_seeds.h"
#include "tests/fuzz/safetensors_seeds.h"

int main(int argc, char** argv) {
  namespace testing = acuity::engine::testing;
  const std::string format = argc == 3 ? argv[1] : "";
  if (format != "gguf" && format != "safetensors") {
    std::fprintf(stderr, "usage: make_corpus gguf|safetensors FOLDER\n");
    return 2;
  }
  const std::vector<std::vector<uint8_t>> seeds =
      format == "gguf" ? testing::GgufSeeds() : testing::SafetensorsSeeds();
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
