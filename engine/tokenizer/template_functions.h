// The filters, tests and methods of the template language, as tables.
#pragma once

#include <span>
#include <string_view>

#include "engine/tokenizer/template_value.h"

namespace acuity::engine::jinja {

inline constexpr int kMaxParameters = 3;

struct Function {
  const char* name;
  int required;                            // of the parameters
  const char* parameters[kMaxParameters];  // names, null at the end
  // args[0] is the subject, then one value for each parameter; Undefined where not given.
  Value (*call)(std::span<const Value> args, Context* context);

  int num_parameters() const;
};

// Null if there is none of that name. Upper and lower case: ASCII letters only.
const Function* FindFilter(std::string_view name);
const Function* FindTest(std::string_view name);
const Function* FindMethod(std::string_view name);

// `needle in haystack`.
bool Contains(const Value& haystack, const Value& needle, Context* context);

}  // namespace acuity::engine::jinja
