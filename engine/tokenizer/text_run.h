// A stretch of a text, by bytes.
#pragma once

#include <cstddef>

namespace acuity::engine {

struct TextRun {
  size_t begin = 0, end = 0;  // [begin, end)
};

}  // namespace acuity::engine
