// How far a long piece of work is, on stderr: a bar with the time that is left on a terminal, else
// a line at every tenth.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace acuity::client {

// "1:02:03", "2:03" or "3 s".
std::string DurationName(double seconds);

// Thread-safe.
class Progress {
 public:
  Progress(std::string what, int64_t total);  // `total` >= 1 units of work
  ~Progress();                                // leaves the terminal's line empty
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Advance(int64_t units);
  // Prints a line, above the bar on a terminal.
  void Say(const std::string& line);

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(Clock::time_point now);
  void PrintLine(Clock::time_point now);

  const std::string what_;
  const int64_t total_;
  const bool terminal_;
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  // Guarded by mutex_:
  Clock::time_point drawn_;
  int64_t done_ = 0;
  int tenths_ = 0;
};

}  // namespace acuity::client
