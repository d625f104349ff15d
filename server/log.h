// One JSON object per line on stderr: {"time","level","event",...}. Prompts and outputs never
// appear.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace acuity::server {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

using LogValue = std::variant<std::string, int64_t, double, bool>;
using LogFields = std::initializer_list<std::pair<const char*, LogValue>>;

// "debug", "info", "warn" or "error"; before any thread logs.
void SetLogLevel(std::string_view level);
// Thread-safe. Values may hold any bytes: what is not UTF-8 is replaced.
void Log(LogLevel level, const char* event, LogFields fields = {});

}  // namespace acuity::server
