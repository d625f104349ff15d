#include "clients/cpp/commands.h"

int main(int argc, char** argv) { return acuity::client::RunCommandLine(argc, argv); }
