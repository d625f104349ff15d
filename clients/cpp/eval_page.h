// The page of `acuity eval`: static files, embedded in the binary when it is built.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace acuity::client {

struct WebFile {
  std::string_view path;  // "/eval_page.html"
  std::string_view content_type;
  std::string_view body;
};

// All of them; they live as long as the process.
std::span<const WebFile> WebFiles();

}  // namespace acuity::client
