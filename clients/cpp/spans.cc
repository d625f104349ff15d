#include "clients/cpp/spans.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <vector>

namespace acuity::client {
namespace {

constexpr size_t kStrongest = 3;

struct HeadMass {
  int layer, head;
  double mass;
};

// The whole of [begin, end) as a number.
bool ParseInt(const char* begin, const char* end, int32_t* value) {
  const auto [stop, error] = std::from_chars(begin, end, *value);
  return error == std::errc() && stop == end;
}

}  // namespace

bool ParseSpan(const std::string& text, v1::TokenSpan* span) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return false;
  int32_t begin = 0, end = 0;
  const char* data = text.data();
  if (!ParseInt(data, data + colon, &begin)) return false;
  if (!ParseInt(data + colon + 1, data + text.size(), &end)) return false;
  span->set_begin(begin);
  span->set_end(end);
  return true;
}

std::string DescribeSpans(const Spans& watch, const v1::SpanReport& report,
                          const std::string& rows) {
  std::string out;
  if (report.rows() == 0) return out;
  for (int s = 0; s < watch.size(); ++s) {
    std::vector<HeadMass> heads;
    double sum = 0;
    for (const v1::LayerSpans& layer : report.layers()) {
      for (const v1::HeadSpans& head : layer.heads()) {
        heads.push_back({layer.layer(), head.head(), head.mass(s)});
        sum += head.mass(s);
      }
    }
    const size_t shown = std::min(kStrongest, heads.size());
    std::partial_sort(heads.begin(), heads.begin() + static_cast<ptrdiff_t>(shown), heads.end(),
                      [](const HeadMass& a, const HeadMass& b) { return a.mass > b.mass; });
    char text[160];
    std::snprintf(text, sizeof text, "%s: %.4f of the attention is on tokens %d:%d", rows.c_str(),
                  sum / static_cast<double>(std::max<size_t>(heads.size(), 1)), watch[s].begin(),
                  watch[s].end());
    out += text;
    for (size_t i = 0; i < shown; ++i) {
      std::snprintf(text, sizeof text, "%s layer %d head %d %.4f",
                    i == 0 ? ", mean of all heads; most of" : ",", heads[i].layer, heads[i].head,
                    heads[i].mass);
      out += text;
    }
    out += '\n';
  }
  return out;
}

}  // namespace acuity::client
