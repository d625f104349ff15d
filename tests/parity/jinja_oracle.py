"""Python jinja2 in the environment that transformers' apply_chat_template configures, and the comparison of it with
chat_template_dump. The oracle of chat_template_parity.py and chat_templates_real.py."""

import collections
import datetime
import functools
import json
import subprocess
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

BOS, EOS = "<s>", "</s>"
NOW = 1735828245  # 2025-01-02 14:30:45 UTC; the tests run with TZ=UTC


class Generation(jinja2.ext.Extension):
    """{% generation %}: transformers notes where the block is; its output is the block's."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_output"), [], [], body).set_lineno(line)

    def _output(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(text):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(text)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


ENVIRONMENT = environment()


@functools.lru_cache(None)
def compiled(source):
    return ENVIRONMENT.from_string(source)


def render(source, chat):
    """What the template makes of `chat`: a string, or the exception."""
    try:
        return compiled(source).render(
            messages=chat["messages"], tools=chat.get("tools"), add_generation_prompt=chat["add_generation_prompt"],
            **{"bos_token": BOS, "eos_token": EOS, "documents": None, **chat.get("variables", {})})
    except Exception as error:  # jinja2 lets Python's own errors through
        return error


def dump(binary, templates, chats, cases):
    """What chat_template_dump makes of cases, pairs of a template's name and the index of a chat."""
    request = {"now": NOW, "bos": BOS, "eos": EOS, "templates": templates, "chats": chats, "cases": cases}
    done = subprocess.run([binary], input=json.dumps(request).encode(), capture_output=True, check=False,
                          env={"TZ": "UTC"})
    if done.returncode != 0:
        sys.exit(f"{binary}: exit status {done.returncode}: {done.stderr.decode('utf-8', 'replace')}")
    return json.loads(done.stdout)


def trusted(answer):
    return "".join(text for text, is_trusted in answer.get("segments", []) if is_trusted)


def neutral(value, spellings):
    """`value` with other letters where a client spells a special token."""
    text = json.dumps(value, ensure_ascii=False)
    for spelling in spellings:
        text = text.replace(spelling, "x" * len(spelling))
    return json.loads(text)


def compare(binary, templates, chats, cases, spellings):
    """Prints what differs. Besides, what comes out as trusted must not depend on whether a client's text spells special
    tokens. Returns counts: cases, errors (of both sides), mismatches, leaks; and the set of templates that rendered."""
    counts, rendered = collections.Counter(), set()
    answers = dump(binary, templates, chats, cases)
    harmless = dump(binary, templates, neutral(chats, spellings), cases)
    for (name, index), answer, other in zip(cases, answers, harmless, strict=True):
        counts["cases"] += 1
        chat = chats[index]
        want = render(templates[name], chat)
        got = "".join(text for text, _ in answer.get("segments", []))
        if isinstance(want, Exception):
            counts["errors"] += 1
            same = "error" in answer
            if type(want) is jinja2.exceptions.TemplateError:  # the template's own, with its message
                same = same and str(want) in answer["error"]
        else:
            same = "error" not in answer and want == got
            rendered.add(name)
        if not same:
            counts["mismatches"] += 1
            if counts["mismatches"] <= 12:
                report(name, templates[name], chat, want, answer, got)
        if trusted(answer) != trusted(other):
            counts["leaks"] += 1
            if counts["leaks"] <= 12:
                print(f"LEAK {name}: {json.dumps(chat, ensure_ascii=False)[:300]}\n"
                      f"  {trusted(answer)[-300:]!r}\n  {trusted(other)[-300:]!r}")
    return counts, rendered


def report(name, template, chat, want, answer, got):
    if isinstance(want, str) and "error" not in answer:
        at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
        want, answer = want[max(0, at - 60):at + 120], got[max(0, at - 60):at + 120]
    elif isinstance(want, str):
        want = want[:80]
    else:
        answer = str(answer)[:300]
    print(f"MISMATCH {name}: {template[:160]!r} {json.dumps(chat, ensure_ascii=False)[:300]}\n"
          f"  want {want!r}\n  got  {answer!r}")
