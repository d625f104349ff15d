// The daemon's life: load, serve, drain, end.
#pragma once

#include "server/config.h"

namespace acuity::server {

// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once. Returns the
// process's exit code: 0 after a drain, 1 when something could not be loaded or bound (told on
// stderr). REQUIRES that no other thread runs yet: signals are blocked here, for all threads.
int RunDaemon(const DaemonConfig& config);

}  // namespace acuity::server
