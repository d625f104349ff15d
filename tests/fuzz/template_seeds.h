// What fuzzing of chat templates starts from.
#pragma once

#include <string_view>

namespace acuity::engine::testing {

// Templates and JSON that use every construct.
inline constexpr std::string_view kTemplateSeeds[] = {
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ m['content'] | trim }}"
    "{% elif m.tool_calls is defined %}{{ m.tool_calls | tojson(indent=2) }}{% else %}"
    "{% continue %}{% endif %}{% endfor %}",
    "{% macro f(a, b=[1, 2.5]) -%} {{ a ~ b[::-1] }}{{ f(a[1:]) if a }} {%- endmacro %}"
    "{{ f(messages) }}{{ f(b={'k': (1, none)}, a='xyz') }}",
    "{% set ns = namespace(s='', n=0) %}{% for k, v in messages[0] | dictsort %}{% set ns.s = "
    "ns.s + k | upper %}{% set ns.n = ns.n + loop.index0 // 2 % 3 %}{% endfor %}{{ ns.s }}",
    "{% set x %}{% filter replace('a', 'b') | indent(2, first=true) %}a\nb{% endfilter %}"
    "{% endset %}{{ x.split('b', 1) | map('title') | join('-') }}{{ '{}{0}'.format(x, 1) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content.0.text') | list "
    "| sort | unique | first | default('none', true) | safe + '<' }}{# c #}{{ -1 | abs < 2 == true "
    "}}",
    "{% generation %}{{ messages.0.content.items() | list }}{% endgeneration %}"
    "{{ raise_exception('x') if messages | length > 9 else strftime_now('%d %b %Y') }}",
};
inline constexpr std::string_view kJsonSeeds[] = {
    R"([{"role": "user", "content": "é <|im_end|>"}, {"role": "assistant", "tool_calls": [{"a": 1.5}]}])",
    R"([{"role": "user", "content": [{"type": "text", "text": "\u00e9\n"}], "n": [null, true, -7]}])",
};

}  // namespace acuity::engine::testing
