// The filters, tests, methods and global functions of the template language, as tables.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tokenizer/template_context.h"
#include "engine/tokenizer/template_value.h"

namespace acuity::engine::jinja {

inline constexpr size_t kMaxParameters = 5;
using Args = std::span<const Value>;

struct Function {
  enum Extra : uint8_t { kNone, kPositional, kAll };

  const char* name;
  size_t required;                                     // of the parameters
  std::array<const char*, kMaxParameters> parameters;  // names, null at the end
  // args[0] is the subject, then one value for each parameter: missing() where not given. With
  // kPositional, then a list of the positional arguments that are left; with kAll, after it a
  // mapping of the named ones.
  Value (*call)(Args args, Context* context);
  Extra extra = kNone;
};

// What a template can call: a function with its subject, or a macro of the template.
struct Macro;
struct Scope;
struct Callable {
  const Function* function = nullptr;
  Value self;
  const Macro* macro = nullptr;
  Scope* scope = nullptr;  // in which the macro was defined; outlives the value
};

// Null if there is none of that name.
const Function* FindFilter(std::string_view name);
const Function* FindTest(std::string_view name);
// Of the type of `object`.
const Function* FindMethod(const Value& object, std::string_view name);
std::span<const Function> GlobalFunctions();

using NamedArgs = std::vector<std::pair<std::string, Value>>;
// Binds the arguments to the parameters, and calls.
Value Invoke(const Function& function, const Value& self, std::span<const Value> positional,
             const NamedArgs& named, Context* context);

// The text of argument i, charged for; null and an error if it is not a string.
const Text* TextArg(Args args, size_t i, Context* context);
// The integer of argument i, `otherwise` if missing; an error if it is something else.
int64_t IntegerArg(Args args, size_t i, int64_t otherwise, Context* context);

// What filters and methods have in common. Subjects that are not strings are printed by `Print`
// first where a filter does so.
Value Strip(const Text& text, const Value& characters, bool left, bool right, Context* context);
Value ReplaceAll(const Text& text, const Text& from, const Text& to, int64_t count,
                 Context* context);
Value MapItems(const Dict& dict, Context* context, List::Kind kind);  // of (key, value)

}  // namespace acuity::engine::jinja
