"""Style that no compiler checks: who includes whom, sizes, words, formatting, build lists.

    tidy.py {includes,sizes,words,format,lists,self_test} [--root DIR]

Prints one `file:line: message` for each violation and fails if there is any. Standard library only.
To allow an exception, add it to EXCEPTIONS with the reason.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

# (check, path, what the message contains): reason.
EXCEPTIONS = {
    ("words", "tests/parity/golden/", ""): "what a model wrote: its words are not ours",
    ("sizes", "kernels/cpu/attention_impl.h", "lines"):
        "the kernel's source for three instruction sets: a header only so that each can compile it",
}

MAX_HEADER_LINES = 250
MAX_SOURCE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_FILE_BYTES = 2 << 20
SKIPPED = 77  # ctest's SKIP_RETURN_CODE

CPP = (".h", ".cc", ".cuh", ".cu")
HEADERS = (".h", ".cuh")

# Folders that a folder may include, itself apart. The longest prefix decides; files in engine/ itself are "engine".
ALLOWED = {
    "kernels": [],
    "engine/base": ["kernels"],
    "engine/tokenizer": ["engine/base", "kernels"],
    "engine/cache": ["engine/base", "kernels"],
    "engine/loader": ["engine/base", "kernels", "engine/tokenizer/tokenizer_spec.h"],
    "engine/schedule": ["engine/base", "kernels", "engine/tokenizer", "engine/cache", "engine/loader"],
    "engine/sample": ["engine/base", "kernels"],
    "engine/report": ["engine/base", "kernels"],
    "engine/model": ["engine/base", "kernels", "engine/tokenizer", "engine/cache", "engine/loader",
                     "engine/schedule"],
    "engine/gpu": ["engine/base", "kernels", "engine/loader", "engine/model"],
    "engine": ["engine/", "kernels"],
    "server": ["engine", "kernels", "acuity/v1", "inference"],
    # `acuity inspect` opens models as the daemon does; nothing of it links LibTorch.
    "clients": ["acuity/v1", "engine/opened_model.h", "engine/loader", "kernels/attention.h"],
}
# Third-party headers that only some folders may include (tests may include what they test).
RESTRICTED = [
    (re.compile(r"(torch|ATen|c10|caffe2)/"), ["engine/model/", "engine/gpu/cuda/", "tests/engine/model/",
                                             "tests/parity/"]),
    (re.compile(r"prometheus/"), ["server/metrics/", "tests/server/metrics/"]),
    (re.compile(r"(grpc|grpcpp)/"), ["server/", "clients/", "tests/server/", "tests/clients/",
                                     "tests/integration/", "tests/fuzz/"]),
    (re.compile(r"inference/"), ["server/grpc/", "tests/server/"]),
    (re.compile(r"acuity/v1/"), ["server/grpc/", "clients/", "tests/server/", "tests/clients/",
                                 "tests/integration/", "tests/fuzz/"]),
]
STANDARD = re.compile(r"[a-z_0-9]+(\.h)?$")  # <vector>, <immintrin.h>
SYSTEM = re.compile(r"(sys|linux|asm)/[a-z_]+\.h$")
PER_ISA = re.compile(r"kernels/cpu/\w+_(avx2|avx512|portable|neon)\.cc$")
SIMD = "kernels/cpu/simd.h"

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def words(*parts):
    """Joins what this file itself must not contain."""
    return "".join(parts)


# (pattern, message); the pattern is searched in each line of every text file.
BANNED = [
    (re.compile(r"\busing\s+namespace\s+" + "std"), words("using ", "namespace ", "std")),
    (re.compile(r"\bstd::" + "regex"), words("std::", "regex: slow and recursive; use PCRE2 or code")),
    (re.compile(r"\b(TO" + "DO|FIX" + "ME|X" + r"XX)\b"), "an open end: finish it or file an issue"),
    (re.compile(r"(?<![\w.$~}/-])/(ro" + "ot|wo" + "rk|ho" + r"me)(/|\b)(?![-\w]*\()"), "a path of one machine"),
    (re.compile(r"py" + r"pi\.org|files\.python" + r"hosted\.org|deb\.deb" + r"ian\.org"), "a package registry's host"),
    (re.compile(r"\bAI[ -]assis" + r"tant|\bCla" + r"ude\b|\bChat" + r"GPT\b", re.I), "a word about how the file was written"),
]
NAME = re.compile(r"(?<![a-z])(fast|optimi[sz]ed)(?![a-z])", re.I)
IDENTIFIER = re.compile(r"\b[A-Za-z_]\w*\b")
COMMENT_OR_STRING = re.compile(r'//.*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
# Compiler flags, library calls and other people's names.
FOREIGN_NAMES = {"ffast", "uint_fast32_t", "use_fast", "FastSerialize", "beta_fast"}


class Tree:
    """The files of a repository: tracked, or new and not ignored."""

    def __init__(self, root):
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, check=True, capture_output=True).stdout.decode()
        self.paths = sorted(p for p in set(listed.split("\0"))
                            if p and os.path.isfile(os.path.join(root, p)))

    def full(self, path):
        return os.path.join(self.root, path)

    def lines(self, path):
        """None for a binary file."""
        with open(self.full(path), "rb") as file:
            data = file.read()
        if b"\0" in data[:8192]:
            return None
        return data.decode("utf-8", errors="replace").splitlines()

    def cpp(self):
        return [p for p in self.paths if p.endswith(CPP)]


def under(path, prefix):
    """`prefix` is a folder ("engine/base"), a file, or "engine/" for the subfolders too."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def folder_of(path):
    parts = path.split("/")
    if parts[0] == "engine" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


# ---- includes ----

def check_layers(path, target):
    folder = folder_of(path)
    if folder not in ALLOWED:
        return None if folder in ("tests", "models", "bench", "tools") else f"no rule for folder {folder}"
    allowed = ALLOWED[folder]
    if folder_of(target) == folder or any(under(target, a) for a in allowed):
        return None
    return f"{folder} may not include {target}"


def check_include(tree, path, bracket, target):
    for pattern, places in RESTRICTED:
        if pattern.match(target):
            if not path.startswith(tuple(places)):
                return f"{target}: only {', '.join(p for p in places if 'tests' not in p)} may include it"
            return None
    if bracket == "<":
        if path.startswith("kernels/") and not (STANDARD.match(target) or SYSTEM.match(target)):
            return f"<{target}>: kernels include the standard library only"
        if os.path.exists(tree.full(target)):
            return f"<{target}>: our own headers are included with quotes"
        return None
    if target.startswith(("absl/", "nlohmann/", "spdlog/", "CLI/", "google/", "gtest/", "gmock/")):
        return f'"{target}": kernels include the standard library only' if path.startswith("kernels/") else None
    if target.startswith("acuity/v1/"):
        return None
    if target.startswith(".") or not os.path.exists(tree.full(target)):
        return f'"{target}": includes are written from the repository root'
    if reaches_simd(tree, target) and not (
            PER_ISA.match(path) or re.match(r"kernels/cpu/\w+\.h$", path) or path.startswith("tests/kernels/")):
        return f'"{target}" leads to {SIMD}: for per-instruction-set units only'
    return check_layers(path, target)


def reaches_simd(tree, target, seen=None):
    """Whether `target` is kernels/cpu/simd.h or includes it, directly or not."""
    seen = set() if seen is None else seen
    if target == SIMD:
        return True
    if target in seen or not target.startswith("kernels/cpu/") or not os.path.exists(tree.full(target)):
        return False
    seen.add(target)
    matches = [INCLUDE.match(line) for line in tree.lines(target) or []]
    return any(reaches_simd(tree, match.group(2), seen) for match in matches if match)


def includes(tree):
    for path in tree.cpp():
        lines = tree.lines(path) or []
        if path.endswith(HEADERS) and "#pragma once" not in lines:
            yield path, 1, "no #pragma once"
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if match:
                message = check_include(tree, path, *match.groups())
                if message:
                    yield path, number, message


# ---- sizes ----

def strip(line):
    return COMMENT_OR_STRING.sub("", line)


def functions(lines):
    """(first line, number of lines) of the blocks directly within namespaces or classes that a ')' precedes."""
    stack = []  # "scope" for namespaces and classes, else "block"
    head, head_line, start = "", 0, None
    raw = False
    for number, line in enumerate(lines, 1):
        if raw or 'R"' in line:  # raw strings: nothing in them counts
            raw = ')"' not in line.split('R"')[-1] if not raw else ')"' not in line
            continue
        if line.lstrip().startswith("#"):
            continue
        for char in strip(line):
            if char == "{":
                scope = re.search(r"\b(namespace|class|struct|union|enum|extern)\b", head) and not re.search(r"\)\s*(const|noexcept|override|final|->.*)*\s*$", head)
                kind = "scope" if scope else "block"
                if kind == "block" and "block" not in stack:
                    start = (head_line or number) if ")" in head else None
                stack.append(kind)
                head, head_line = "", 0
            elif char == "}":
                kind = stack.pop() if stack else "scope"
                if kind == "block" and "block" not in stack and start:
                    yield start, number - start + 1
                    start = None
                head, head_line = "", 0
            elif char == ";":
                head, head_line = "", 0
            else:
                if not head.strip() and not char.isspace():
                    head_line = number
                head += char
        head += " "


def sizes(tree):
    for path in tree.paths:
        size = os.path.getsize(tree.full(path))
        if size > MAX_FILE_BYTES:
            yield path, 1, f"{size} bytes; at most {MAX_FILE_BYTES} are committed"
    for path in tree.cpp():
        lines = tree.lines(path) or []
        limit = MAX_HEADER_LINES if path.endswith(HEADERS) else MAX_SOURCE_LINES
        if len(lines) >= limit:
            yield path, len(lines), f"{len(lines)} lines; fewer than {limit}"
        for start, length in functions(lines):
            if length >= MAX_FUNCTION_LINES:
                yield path, start, f"a function of {length} lines; fewer than {MAX_FUNCTION_LINES}"


# ---- words ----

def bad_name(name):
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return NAME.search(split) and name not in FOREIGN_NAMES


def check_words(tree):
    for path in tree.paths:
        if any(bad_name(part) for part in path.split("/")):
            yield path, 1, "a name that boasts: say what it does"
        for number, line in enumerate(tree.lines(path) or [], 1):
            for pattern, message in BANNED:
                found = pattern.search(line)
                if found:
                    yield path, number, f"'{found.group(0)}': {message}"
            if path.endswith(CPP + (".py", ".proto", ".cmake")):
                code = strip(line) if path.endswith(CPP) else re.sub(r"#.*", "", COMMENT_OR_STRING.sub("", line))
                for name in IDENTIFIER.findall(code):
                    if bad_name(name):
                        yield path, number, f"{name}: a name that boasts: say what it does"


# ---- format ----

def format_(tree):
    tool = shutil.which("clang-format-14")
    if tool is None:
        print("tidy: clang-format-14 is not installed: skipped")
        sys.exit(SKIPPED)
    paths = tree.cpp()
    if not paths:
        return
    run = subprocess.run([tool, "--dry-run", "-Werror", "--ferror-limit=1", "--style=file", *paths],
                         cwd=tree.root, capture_output=True, text=True)
    for line in run.stderr.splitlines():
        match = re.match(r"(.+?):(\d+):\d+: (?:error|warning): (.*)", line)
        if match:
            yield match.group(1), int(match.group(2)), match.group(3)
    if run.returncode != 0 and not run.stderr:
        yield ".clang-format", 1, f"clang-format-14 failed ({run.returncode})"


# ---- lists ----

def listed(tree):
    """Sources named in a CMakeLists.txt or .cmake file, as paths from the root."""
    found = set()
    for path in tree.paths:
        if os.path.basename(path) != "CMakeLists.txt" and not path.endswith(".cmake"):
            continue
        folder = os.path.dirname(path)
        text = "\n".join(re.sub(r"#.*", "", line) for line in tree.lines(path) or [])
        for name in re.findall(r"[\w./${}-]+\.(?:cc|cu)\b", text):
            name = re.sub(r"^\$\{(PROJECT_SOURCE_DIR|CMAKE_SOURCE_DIR|ACUITY_ROOT)\}/", "/", name)
            name = re.sub(r"^\$\{CMAKE_CURRENT_(SOURCE|LIST)_DIR\}/", "", name)
            found.add(os.path.normpath(name[1:] if name.startswith("/") else os.path.join(folder, name)))
        for name in re.findall(r"\b(\w+_test)\b", text):  # a loop over names: ${name}.cc
            if re.search(r"\$\{\w+\}(_test)?\.cc", text):
                found.add(os.path.normpath(os.path.join(folder, name + ".cc")))
    return found


def lists(tree):
    names = listed(tree)
    for path in tree.paths:
        if path.endswith((".cc", ".cu")) and path not in names:
            kind = "test" if path.endswith("_test.cc") else "source"
            yield path, 1, f"a {kind} that no CMakeLists.txt builds"


# ---- self test ----

CLEAN = {
    "CMakeLists.txt": "add_library(a kernels/a.cc engine/model/m.cc)\n",
    "kernels/a.h": "#pragma once\n#include <vector>\n",
    "kernels/a.cc": '#include "kernels/a.h"\n\nnamespace a {\nint F() { return 1; }\n}  // namespace a\n',
    "engine/base/b.h": '#pragma once\n#include "kernels/a.h"\n',
    "engine/tokenizer/tokenizer_spec.h": '#pragma once\n#include "engine/base/b.h"\n',
    "engine/tokenizer/tokenizer.h": '#pragma once\n#include "engine/tokenizer/tokenizer_spec.h"\n',
    "engine/loader/l.h": '#pragma once\n#include "engine/tokenizer/tokenizer_spec.h"\n',
    "engine/sample/s.h": '#pragma once\n#include "engine/base/b.h"\n',
    "engine/model/m.h": '#pragma once\n#include "engine/loader/l.h"\n',
    "engine/model/m.cc": '#include "engine/model/m.h"\n\n#include <ATen/ATen.h>\n',
    "engine/engine.h": '#pragma once\n#include "engine/model/m.h"\n#include "engine/sample/s.h"\n',
    "server/grpc/g.h": '#pragma once\n#include <grpcpp/grpcpp.h>\n\n#include "acuity/v1/acuity.pb.h"\n'
                       '#include "engine/engine.h"\n',
    "clients/cpp/c.h": '#pragma once\n#include "acuity/v1/acuity.pb.h"\n',
}


def long_function(lines):
    return "namespace a {\nclass B {\n  int G(int x,\n        int y) const {\n" + "    x += y;\n" * (lines - 3) + "  }\n};\n}\n"


# (check, path, contents, part of the message or None if clean)
PLANTS = [
    ("includes", "kernels/x.h", '#include <vector>\n', "#pragma once"),
    ("includes", "kernels/x.cc", '#include "absl/status/status.h"\n', "standard library"),
    ("includes", "kernels/x.cc", '#include <absl/status/status.h>\n', "standard library"),
    ("includes", "kernels/x.cc", '#include <sys/mman.h>\n#include <immintrin.h>\n', None),
    ("includes", "kernels/x.cc", '#include "engine/base/b.h"\n', "may not include"),
    ("includes", "kernels/cpu/simd.h", '#pragma once\n', None),
    ("includes", "kernels/x.cc", '#include "kernels/cpu/simd.h"\n', "per-instruction-set"),
    ("includes", "kernels/cpu/x_avx2.cc", '#include "kernels/cpu/simd.h"\n', None),
    ("includes", "kernels/cpu/x_impl.h", '#pragma once\n#include "kernels/cpu/simd.h"\n', None),
    ("includes", "kernels/cpu/x_avx2.cc", '#include "kernels/cpu/x_impl.h"\n', None),
    ("includes", "kernels/x.cc", '#include "kernels/cpu/x_impl.h"\n', "per-instruction-set"),
    ("includes", "engine/base/x.h", '#pragma once\n#include "engine/sample/s.h"\n', "may not include"),
    ("includes", "engine/loader/x.h", '#pragma once\n#include "engine/tokenizer/tokenizer.h"\n', "may not include"),
    ("includes", "engine/model/x.h", '#pragma once\n#include "engine/sample/s.h"\n', "may not include"),
    ("includes", "engine/sample/x.h", '#pragma once\n#include "engine/loader/l.h"\n', "may not include"),
    ("includes", "engine/sample/x.h", '#pragma once\n#include "engine/engine.h"\n', "may not include"),
    ("includes", "engine/sample/x.cc", '#include <torch/torch.h>\n', "only engine/model/"),
    ("includes", "engine/x.cc", '#include "server/grpc/g.h"\n', "may not include"),
    ("includes", "engine/x.cc", '#include <grpcpp/grpcpp.h>\n', "only server/"),
    ("includes", "engine/x.cc", '#include "acuity/v1/acuity.pb.h"\n', "only server/grpc/"),
    ("includes", "server/x.cc", '#include "acuity/v1/acuity.grpc.pb.h"\n', "only server/grpc/"),
    ("includes", "server/x.cc", '#include <prometheus/gauge.h>\n', "only server/metrics/"),
    ("includes", "server/metrics/x.cc", '#include <prometheus/gauge.h>\n', None),
    ("includes", "clients/cpp/x.cc", '#include "engine/engine.h"\n', "may not include"),
    ("includes", "clients/cpp/x.cc", '#include "kernels/a.h"\n', "may not include"),
    ("includes", "clients/cpp/x.cc", '#include "server/grpc/g.h"\n', "may not include"),
    ("includes", "engine/base/x.cc", '#include "b.h"\n', "repository root"),
    ("includes", "engine/base/x.cc", '#include "../base/b.h"\n', "repository root"),
    ("includes", "engine/base/x.cc", '#include <engine/base/b.h>\n', "with quotes"),
    ("includes", "elsewhere/x.cc", '#include "engine/base/b.h"\n', "no rule"),
    ("sizes", "kernels/x.h", "\n" * MAX_HEADER_LINES, "250 lines"),
    ("sizes", "kernels/x.h", "\n" * (MAX_HEADER_LINES - 1), None),
    ("sizes", "kernels/x.cc", "\n" * MAX_SOURCE_LINES, "600 lines"),
    ("sizes", "kernels/x.cc", long_function(70), "a function of 70 lines"),
    ("sizes", "kernels/x.cc", long_function(69), None),
    ("sizes", "kernels/x.cc", "namespace a {\nconst int kTable[] = {\n" + "  1,\n" * 90 + "};\n}\n", None),
    ("sizes", "kernels/x.cc", "namespace a {\nint F() { return '{'; }  // {\n" + "int g();\n" * 90 + "}\n", None),
    ("sizes", "big.bin", "\0" * (MAX_FILE_BYTES + 1), "bytes"),
    ("words", "kernels/x.cc", words("using ", "namespace ", "std;\n"), "namespace"),
    ("words", "kernels/x.cc", words("#include <r", "egex>\nstd::", "regex r;\n"), "PCRE2"),
    ("words", "notes.md", words("TO", "DO: more\n"), "open end"),
    ("words", "kernels/x.cc", words("int a;  // FIX", "ME\n"), "open end"),
    ("words", "run.sh", words("cd /ro", "ot/x\n"), "one machine"),
    ("words", "run.sh", words('x="/wo', 'rk"\n'), "one machine"),
    ("words", "run.sh", words("ls (/ho", "me/me)\n"), "one machine"),
    ("words", "run.sh", "cd tests/wo" + "rk; curl https://a.example/ho" + "me $HOME/wo" + "rk\n", None),
    ("words", "lock.txt", words("https://py", "pi.org/simple\n"), "registry"),
    ("words", "lock.txt", words("https://files.python", "hosted.org/a\n"), "registry"),
    ("words", "lock.txt", words("http://deb.deb", "ian.org\n"), "registry"),
    ("words", "notes.md", words("by Cla", "ude\n"), "how the file was written"),
    ("words", "notes.md", words("an AI assis", "tant\n"), "how the file was written"),
    ("words", "notes.md", words("A fast path, breakfast, optim", "ised.\n"), None),
    ("words", "kernels/x.cc", words("// fast\nint Fas", "tPath();\n"), "boasts"),
    ("words", "kernels/x.cc", "int breakfast; const char* s = \"fast\";\n", None),
    ("words", "kernels/x.cc", words("int gemm_optim", "ized;\n"), "boasts"),
    ("words", words("kernels/gemm_fas", "t.cc"), "\n", "boasts"),
    ("format", "kernels/x.cc", "int   a ;\n", "formatted"),
    ("lists", "tests/kernels/x_test.cc", "\n", "a test that no"),
    ("lists", "kernels/x.cc", "\n", "a source that no"),
]


def write(root, path, contents):
    os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
    with open(os.path.join(root, path), "w", encoding="utf-8") as file:
        file.write(contents)


def self_test():
    failures = 0
    with tempfile.TemporaryDirectory() as root:
        subprocess.run(["git", "init", "-q", root], check=True)
        for path, contents in {**CLEAN, ".clang-format": "BasedOnStyle: Google\n"}.items():
            write(root, path, contents)
        for name, check in CHECKS.items():
            if name == "format" and shutil.which("clang-format-14") is None:
                continue
            for violation in violations(name, check, Tree(root)):
                failures += 1
                print(f"self_test: the clean tree fails {name}: {violation}")
        for number, (name, path, contents, expected) in enumerate(PLANTS):
            if name == "format" and shutil.which("clang-format-14") is None:
                continue
            write(root, path, contents)
            found = violations(name, CHECKS[name], Tree(root))
            here = [message for where, _, message in found if where == path]
            if (expected is None and found) or (expected is not None and not any(expected in m for m in here)):
                failures += 1
                print(f"self_test: plant {number} ({name}, {path}): expected {expected!r}, found {found}")
            if path not in ("kernels/cpu/simd.h", "kernels/cpu/x_impl.h"):  # later plants include them
                os.remove(os.path.join(root, path))
    print(f"self_test: {len(PLANTS)} plants, {failures} failures")
    return failures


# ---- main ----

CHECKS = {"includes": includes, "sizes": sizes, "words": check_words, "format": format_, "lists": lists}


def excepted(check, path, message):
    return any(check == c and path.startswith(p) and part in message for c, p, part in EXCEPTIONS)


def violations(name, check, tree):
    return [v for v in check(tree) if not excepted(name, v[0], v[2])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=[*CHECKS, "self_test"])
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    arguments = parser.parse_args()
    if arguments.check == "self_test":
        sys.exit(1 if self_test() else 0)
    root = os.path.abspath(arguments.root)
    if not os.path.exists(os.path.join(root, ".git")):
        print("tidy: not a git checkout: skipped")
        sys.exit(SKIPPED)
    found = violations(arguments.check, CHECKS[arguments.check], Tree(root))
    for path, line, message in found:
        print(f"{path}:{line}: {message}")
    print(f"tidy {arguments.check}: {len(found)} violations")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
