// The attention page: static files of this folder, embedded in the binary when it is built.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace acuity::server {

struct WebFile {
  std::string_view path;  // "/index.html"
  std::string_view content_type;
  std::string_view body;
};

// All of them; they live as long as the process.
std::span<const WebFile> WebFiles();

}  // namespace acuity::server
