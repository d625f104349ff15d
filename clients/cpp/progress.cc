#include "clients/cpp/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace acuity::client {
namespace {

constexpr int kBarWidth = 32;
constexpr std::chrono::milliseconds kRedraw{100};

double Seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

std::string DurationName(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  char text[32];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02d:%02d", static_cast<long long>(whole / 3600),
                  static_cast<int>(whole / 60 % 60), static_cast<int>(whole % 60));
  } else if (whole >= 60) {
    std::snprintf(text, sizeof text, "%d:%02d", static_cast<int>(whole / 60),
                  static_cast<int>(whole % 60));
  } else {
    std::snprintf(text, sizeof text, "%d s", static_cast<int>(whole));
  }
  return text;
}

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)),
      total_(std::max<int64_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (terminal_) std::fprintf(stderr, "\r\033[K");
}

void Progress::Advance(int64_t units) {
  std::lock_guard lock(mutex_);
  done_ = std::min(total_, done_ + units);
  const Clock::time_point now = Clock::now();
  if (terminal_) {
    if (now - drawn_ < kRedraw && done_ < total_) return;
    Draw(now);
  } else if (const int tenths = static_cast<int>(10 * done_ / total_); tenths > tenths_) {
    tenths_ = tenths;
    PrintLine(now);
  }
}

void Progress::Say(const std::string& line) {
  std::lock_guard lock(mutex_);
  std::fprintf(stderr, "%s%s\n", terminal_ ? "\r\033[K" : "", line.c_str());
  if (terminal_) Draw(Clock::now());
}

void Progress::Draw(Clock::time_point now) {
  drawn_ = now;
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const std::string bar(static_cast<size_t>(share * kBarWidth), '#');
  const double left = share > 0 ? Seconds(now - start_) * (1 - share) / share : 0;
  std::fprintf(stderr, "\r\033[K%s [%-*s] %3.0f %%, %s left", what_.c_str(), kBarWidth, bar.c_str(),
               100 * share, DurationName(left).c_str());
}

void Progress::PrintLine(Clock::time_point now) {
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const double past = Seconds(now - start_);
  std::fprintf(stderr, "%s: %.0f %% after %s, %s left\n", what_.c_str(), 100 * share,
               DurationName(past).c_str(), DurationName(past * (1 - share) / share).c_str());
}

}  // namespace acuity::client
