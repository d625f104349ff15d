// Operators, attributes and subscripts.
#pragma once

#include <span>
#include <string_view>

#include "engine/tokenizer/template_ast.h"
#include "engine/tokenizer/template_context.h"

namespace acuity::engine::jinja {

Value Binary(Operator op, const Value& a, const Value& b, Context* context);
bool Compare(Operator op, const Value& a, const Value& b, Context* context);
Value Negate(const Value& value, Context* context);

// `object.name`: a method goes before a key of that name, as in Python. Undefined if there is none.
Value Attribute(const Value& object, std::string_view name, Context* context);
// `object[index]`: a key goes before a method.
Value Item(const Value& object, const Value& index, Context* context);
// `object[start:stop:step]`, missing() where left out.
Value Slice(std::span<const Value> args, Context* context);

}  // namespace acuity::engine::jinja
