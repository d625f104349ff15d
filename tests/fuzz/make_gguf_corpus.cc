// Writes the seeds into a folder: make_gguf_corpus FOLDER. Used by scripts/fuzz.
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/fuzz/gguf_seeds.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_gguf_corpus FOLDER\n");
    return 2;
  }
  int number = 0;
  for (const acuity::engine::testing::Bytes& seed : acuity::engine::testing::GgufSeeds()) {
    const std::string path = std::string(argv[1]) + "/seed_" + std::to_string(number++) + ".gguf";
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
