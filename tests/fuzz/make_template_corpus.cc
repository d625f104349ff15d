// Writes the seeds into a folder: make_template_corpus FOLDER. Used by scripts/fuzz.
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/fuzz/template_fuzz.h"

int main(int argc, char** argv) {
  namespace testing = acuity::engine::testing;
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_template_corpus FOLDER\n");
    return 2;
  }
  int number = 0;
  for (const std::string_view source : testing::kTemplateSeeds) {
    for (const std::string_view json : testing::kJsonSeeds) {
      const std::string path = std::string(argv[1]) + "/seed_" + std::to_string(number++);
      std::ofstream file(path, std::ios::binary);
      file << source << '\0' << json;
      if (!file.flush()) {
        std::fprintf(stderr, "cannot write %s\n", path.c_str());
        return 1;
      }
    }
  }
  return 0;
}
