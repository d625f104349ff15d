// The attention report drawn for a terminal: layers down, context length across.
#pragma once

#include <string>

#include "acuity/v1/acuity.pb.h"

namespace acuity::client {

// Normalised entropy H / ln n of each layer (or band) and context bucket, as numbers on a
// background that goes from blue (sharp, 0) to red (flat, 1) where `colour`; below it the largest
// probability and the effective context, averaged over layers. "" for an empty report.
std::string DrawHeatMap(const v1::AttentionReport& report, const std::string& title, bool colour);

}  // namespace acuity::client
