#include "engine/tokenizer/template_functions.h"

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_text.h"

namespace acuity::engine::jinja {

const Text* TextArg(Args args, size_t i, Context* context) {
  const Text* text = args[i].text();
  if (text == nullptr) {
    context->FailType("expected a string, got", args[i]);
  } else if (!context->Charge(text->size())) {
    return nullptr;
  }
  return text;
}

int64_t IntegerArg(Args args, size_t i, int64_t otherwise, Context* context) {
  int64_t value = otherwise;
  if (!args[i].missing() && !args[i].none() && !args[i].Integer(&value)) {
    context->FailType("expected an integer, got", args[i]);
  }
  return value;
}

Value Invoke(const Function& function, const Value& self, std::span<const Value> positional,
             const NamedArgs& named, Context* context) {
  std::vector<Value> args(1 + kMaxParameters);
  args[0] = self;
  size_t parameters = 0;
  while (parameters < kMaxParameters && function.parameters[parameters] != nullptr) ++parameters;
  args.resize(1 + parameters);
  std::vector<Value> rest;
  for (size_t i = 0; i < positional.size(); ++i) {
    if (i < parameters) {
      args[1 + i] = positional[i];
    } else {
      rest.push_back(positional[i]);
    }
  }
  Dict extra;
  for (const auto& [name, value] : named) {
    size_t slot = 0;
    while (slot < parameters && name != function.parameters[slot]) ++slot;
    if (slot < parameters && args[1 + slot].missing()) {
      args[1 + slot] = value;
    } else {
      extra.Set(Value::Trusted(name), value);
    }
  }
  if (!rest.empty() && function.extra == Function::kNone) {
    return context->Fail(absl::StrCat(function.name, ": too many arguments"));
  }
  if (!extra.entries.empty() && function.extra != Function::kAll) {
    return context->Fail(absl::StrCat(function.name, ": argument '",
                                      std::string(extra.entries[0].first.text()->bytes()),
                                      "' is not supported"));
  }
  for (size_t i = 0; i < function.required; ++i) {
    if (args[1 + i].missing()) {
      return context->Fail(
          absl::StrCat(function.name, ": needs the argument ", function.parameters[i]));
    }
  }
  if (function.extra != Function::kNone) args.push_back(context->MakeList(std::move(rest)));
  if (function.extra == Function::kAll) args.push_back(context->MakeDict(std::move(extra)));
  if (context->failed()) return {};
  Value result = function.call(args, context);
  if (result.text() != nullptr) context->CheckSize(result.text()->size());
  return context->failed() ? Value() : result;
}

Value Strip(const Text& text, const Value& characters, bool left, bool right, Context* context) {
  std::string_view set;
  const bool given = !characters.missing() && !characters.none();
  if (given) {
    const Text* argument = TextArg({&characters, 1}, 0, context);
    // Each character of the text is looked for among these.
    if (argument == nullptr || !context->Charge(text.size() * (argument->size() / 16))) return {};
    set = argument->bytes();
  }
  const auto [begin, end] = StripBounds(text.bytes(), given ? &set : nullptr, left, right);
  return text.Part(begin, end);
}

Value ReplaceAll(const Text& text, const Text& from, const Text& to, int64_t count,
                 Context* context) {
  if (from.size() == 0) return context->Fail("replacing the empty string is not supported");
  Text result;
  size_t pos = 0;
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    const size_t found = Find(text.bytes(), from.bytes(), pos);
    if (found == std::string_view::npos) break;
    if (!context->Charge(found - pos + to.size()) || !context->CheckSize(result.size())) return {};
    result.AppendPart(text, pos, found);
    result.Append(to);
    pos = found + from.size();
  }
  result.AppendPart(text, pos, text.size());
  return result;
}

Value MapItems(const Dict& dict, Context* context, List::Kind kind) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    items.push_back(context->MakeList({key, value}, List::Kind::kTuple));
    if (context->failed()) return {};
  }
  return context->MakeList(std::move(items), kind);
}

}  // namespace acuity::engine::jinja
