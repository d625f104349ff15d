// Options that several files' commands have.
#pragma once

#include <CLI/CLI.hpp>

#include "clients/cpp/commands.h"

namespace acuity::client {

// --server, --json, --timeout, TLS and the token.
void AddCommon(CLI::App& app, CommonOptions& common);

}  // namespace acuity::client
