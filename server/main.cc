#include "server/daemon.h"

int main(int argc, char** argv) {
  int exit_code = 0;
  const auto config = acuity::server::ParseCommandLine(argc, argv, &exit_code);
  return config ? acuity::server::RunDaemon(*config) : exit_code;
}
