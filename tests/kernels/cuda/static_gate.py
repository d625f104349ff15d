"""What nvcc made of the CUDA kernels, held against a written budget; needs no GPU.

    static_gate.py --cuobjdump PROGRAM --budget FILE [--ninja-log FILE] OBJECT...

Disassembles every kernel in the objects and prints one row for each kernel and architecture. Fails, naming the kernel,
the figure and the limit, where a kernel

  - uses more registers than its budget, any stack, or a load from or a store to local memory (a spill);
  - lacks an instruction that its budget requires: "mma", "wgmma" (tensor cores), "async_copy_128" (LDGSTS.128: cp.async
    of 16 bytes), "global_load_128", "global_store_128", "shared_load_128" (LDS.128 or LDSM);
  - has no budget, or more than one; and where a budget fits no kernel or an architecture is missing.

The budget file: {"architectures": [...], "kernels": [{"name": REGEX, "max_registers": N or {ARCH: N},
"require": [CLASS, ...], "why": TEXT}, ...]}; a name has to match a kernel's whole name without namespaces and
parameters, template arguments included.
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys

# The first word of an instruction -> what it counts as.
CLASSES = {
    "mma": re.compile(r"(HMMA|IMMA|QMMA|DMMA)\."),
    "wgmma": re.compile(r"(HGMMA|IGMMA|QGMMA)\."),
    "async_copy_128": re.compile(r"LDGSTS\.(\w+\.)*128\b|UTMALDG|UBLKCP"),
    "global_load_128": re.compile(r"LDG\.(\w+\.)*128\b"),
    "global_store_128": re.compile(r"STG\.(\w+\.)*128\b"),
    "shared_load_128": re.compile(r"LDS\.(\w+\.)*128\b|LDSM\."),
    "local": re.compile(r"(LDL|STL)\b"),
}
COLUMNS = {"mma": "mma", "wgmma": "wgmma", "async_copy_128": "cp128", "global_load_128": "ldg128",
           "global_store_128": "stg128", "shared_load_128": "lds128", "local": "local"}
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


class Kernel:
    def __init__(self):
        self.registers = self.stack = None
        self.instructions = 0
        self.count = collections.Counter()


def parse(usage, sass):
    """{(mangled name, architecture): Kernel} from `cuobjdump -res-usage` and `cuobjdump -sass`."""
    kernels = collections.defaultdict(Kernel)
    arch = name = None
    for line in usage.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            arch = match.group(1)
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match.group(1)
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+)", line):
            kernel = kernels[name, arch]
            kernel.registers, kernel.stack = int(match.group(1)), int(match.group(2))
    for line in sass.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            arch = match.group(1)
        elif match := re.match(r"\s*Function : (\S+)", line):
            name = match.group(1)
        elif match := INSTRUCTION.match(line):
            kernel = kernels[name, arch]
            kernel.instructions += 1
            for what, pattern in CLASSES.items():
                if pattern.match(match.group(1)):
                    kernel.count[what] += 1
    return dict(kernels)


def short_name(demangled):
    """'void a::Entry<a::K<(a::E)1, 64> >(a::K<(a::E)1, 64>::Args)' -> 'K<1, 64>'."""
    text = demangled.replace("(anonymous namespace)::", "")
    text = re.sub(r"^void ", "", text)
    text = re.sub(r"\((?:[\w:]+|bool|int)\)(?=-?\d)", "", text)  # casts of enumerators: (a::E)1
    depth = 0
    for i, char in enumerate(text):  # parameters begin at the first '(' outside template arguments
        depth += (char == "<") - (char == ">")
        if char == "(" and depth == 0:
            text = text[:i]
            break
    text = re.sub(r"\b\w+::", "", text).replace(" >", ">")
    entry = re.fullmatch(r"Entry<(.*)>", text)  # kernels/cuda/prim: Entry<Kernel> runs Kernel::Run
    return entry.group(1) if entry else text


def budget_of(name, budgets):
    return [b for b in budgets if re.fullmatch(b["name"], name)]


def check_kernel(name, arch, kernel, budget):
    """Messages about one kernel."""
    where = f"{name} on {arch}"
    limit = budget["max_registers"]
    limit = limit[arch] if isinstance(limit, dict) else limit
    if kernel.registers is None or kernel.instructions == 0:
        yield f"{where}: no resource usage or no code in the objects"
        return
    if kernel.registers > limit:
        yield f"{where}: {kernel.registers} registers; the budget is {limit}"
    if kernel.stack > 0:
        yield f"{where}: {kernel.stack} bytes of stack; the limit is 0"
    if kernel.count["local"] > 0:
        yield f"{where}: {kernel.count['local']} local loads and stores (spills); the limit is 0"
    for what in budget["require"]:
        if kernel.count[what] == 0:
            yield f"{where}: 0 {what} instructions; at least 1 is required"


def check(kernels, budget_file):
    """Messages about all kernels: {(short name, arch): Kernel}."""
    budgets = budget_file["kernels"]
    for budget in budgets:
        for what in budget["require"]:
            if what not in CLASSES:
                yield f"budget {budget['name']}: '{what}' is none of {', '.join(CLASSES)}"
    used = set()
    for (name, arch), kernel in sorted(kernels.items()):
        fitting = budget_of(name, budgets)
        if len(fitting) != 1:
            yield f"{name} on {arch}: {len(fitting)} budgets; exactly 1 is required"
            continue
        used.add((fitting[0]["name"], arch))
        yield from check_kernel(name, arch, kernel, fitting[0])
    for budget in budgets:
        for arch in budget_file["architectures"]:
            if arch not in budget.get("architectures", [arch]):
                continue
            if (budget["name"], arch) not in used:
                yield f"budget {budget['name']}: 0 kernels on {arch}; at least 1 is required"


def table(kernels, budgets):
    header = ["kernel", "arch", "registers", "budget", "stack", *COLUMNS.values(), "instructions"]
    rows = [header]
    for (name, arch), kernel in sorted(kernels.items()):
        limits = [b["max_registers"] for b in budget_of(name, budgets)]
        limit = str(limits[0][arch] if isinstance(limits[0], dict) else limits[0]) if limits else "none"
        rows.append([name, arch, str(kernel.registers), limit, str(kernel.stack),
                     *(str(kernel.count[c]) for c in COLUMNS), str(kernel.instructions)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths)))
                     for row in rows)


def run(program, option, path):
    env = dict(os.environ, PATH=os.path.dirname(program) + os.pathsep + os.environ.get("PATH", ""))
    return subprocess.run([program, option, path], env=env, check=True, capture_output=True, text=True).stdout


def read(cuobjdump, objects):
    kernels = {}
    for path in objects:
        kernels.update(parse(run(cuobjdump, "-res-usage", path), run(cuobjdump, "-sass", path)))
    names = sorted({name for name, _ in kernels})
    demangled = subprocess.run(["c++filt", *names], check=True, capture_output=True, text=True).stdout.splitlines()
    short = {name: short_name(text) for name, text in zip(names, demangled)}
    if len(set(short.values())) != len(short):
        raise SystemExit(f"static_gate: two kernels of one name among {sorted(short.values())}")
    return {(short[name], arch): kernel for (name, arch), kernel in kernels.items()}


def build_seconds(ninja_log, objects):
    """CPU-minutes are not known; the wall time that ninja noted for each object is (little, where ccache had it)."""
    seconds = {}
    with open(ninja_log, encoding="utf-8") as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 5:
                seconds[os.path.basename(fields[3])] = (int(fields[1]) - int(fields[0])) / 1000
    return sum(seconds.get(os.path.basename(path), 0) for path in objects)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuobjdump", required=True)
    parser.add_argument("--budget", required=True)
    parser.add_argument("--ninja-log")
    parser.add_argument("objects", nargs="+")
    arguments = parser.parse_args()
    with open(arguments.budget, encoding="utf-8") as file:
        budget = json.load(file)
    kernels = read(arguments.cuobjdump, arguments.objects)
    print(table(kernels, budget["kernels"]))
    if arguments.ninja_log and os.path.exists(arguments.ninja_log):
        print(f"compiled in {build_seconds(arguments.ninja_log, arguments.objects):.0f} s, summed over "
              f"{len(arguments.objects)} sources, as last built here")
    messages = list(check(kernels, budget))
    for message in messages:
        print(f"static_gate: {message}")
    print(f"static_gate: {len(kernels)} kernels, {len(messages)} violations")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
