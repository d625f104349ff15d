// Watched parts of a prompt: as they are written on the command line, and what became of them.
#pragma once

#include <string>

#include "acuity/v1/acuity.pb.h"

namespace acuity::client {

// "BEGIN:END", token numbers of the prompt from 0, the end not included. False if it is not that.
bool ParseSpan(const std::string& text, v1::TokenSpan* span);

using Spans = google::protobuf::RepeatedPtrField<v1::TokenSpan>;

// For each span of a request's `watch`: the mass that it has on average over all heads, and the
// heads that give it the most. "" for an empty report. `rows` names whose attention it is.
std::string DescribeSpans(const Spans& watch, const v1::SpanReport& report,
                          const std::string& rows);

}  // namespace acuity::client
