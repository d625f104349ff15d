"""The static gate must fail where it should: on planted figures, planted kernels and a planted budget.

    static_gate_test.py --nvcc PROGRAM --cuobjdump PROGRAM
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import unittest

import static_gate

ARGUMENTS = None

USAGE = """
arch = sm_80
 Function _Z1aILi64EEvPf:
  REG:{registers} STACK:{stack} SHARED:0 LOCAL:0 CONSTANT[0]:448 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
arch = sm_80
\t\tFunction : _Z1aILi64EEvPf
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;   /* 0x00000a00ff017624 */
                                                                             /* 0x000fe400078e00ff */
        /*0010*/              @!P5 LDG.E.128.CONSTANT R4, [R2.64] ;          /* 0x00006a0000007a13 */
        /*0020*/                   LDGSTS.E.BYPASS.128 [R4], [R2.64] ;       /* 0x00006a0000007a13 */
        /*0030*/                   LDSM.16.MT88.4 R108, [R4] ;               /* 0x00006a0000007a13 */
        /*0040*/              @UP0 HMMA.16816.F32.BF16 R4, R4, R8, R4 ;      /* 0x00006a0000007a13 */
        /*0050*/                   STG.E.128 [R2.64], R4 ;                   /* 0x00006a0000007a13 */
{more}
"""
EVERYTHING = ["mma", "async_copy_128", "global_load_128", "global_store_128", "shared_load_128"]


def messages(registers=40, stack=0, more="", without="", budgets=None, architectures=("sm_80",)):
    sass = "\n".join(line for line in SASS.format(more=more).splitlines() if not without or without not in line)
    kernels = static_gate.parse(USAGE.format(registers=registers, stack=stack), sass)
    named = {("A<64>", arch): kernel for (_, arch), kernel in kernels.items()}
    if budgets is None:
        budgets = [{"name": "A<.*>", "max_registers": 40, "require": EVERYTHING}]
    return list(static_gate.check(named, {"architectures": list(architectures), "kernels": budgets}))


class Figures(unittest.TestCase):
    def test_clean(self):
        self.assertEqual(messages(), [])

    def test_one_register_too_many(self):
        self.assertEqual(messages(registers=41), ["A<64> on sm_80: 41 registers; the budget is 40"])

    def test_a_limit_of_its_own_for_an_architecture(self):
        budget = {"name": "A<64>", "max_registers": {"sm_80": 39, "sm_90a": 99}, "require": []}
        self.assertEqual(messages(budgets=[budget]), ["A<64> on sm_80: 40 registers; the budget is 39"])

    def test_stack(self):
        self.assertEqual(messages(stack=8), ["A<64> on sm_80: 8 bytes of stack; the limit is 0"])

    def test_spills(self):
        for instruction in ("LDL R1, [R2]", "STL.64 [R2], R4", "@P0 LDL.LU R1, [R2]"):
            more = f"        /*0060*/              {instruction} ;     /* 0x0 */"
            self.assertEqual(messages(more=more),
                             ["A<64> on sm_80: 1 local loads and stores (spills); the limit is 0"])

    def test_each_required_instruction(self):
        for what, line in zip(EVERYTHING, ("HMMA", "LDGSTS", "LDG.E", "STG", "LDSM")):
            self.assertEqual(messages(without=line),
                             [f"A<64> on sm_80: 0 {what} instructions; at least 1 is required"])

    def test_narrow_accesses_do_not_count(self):
        for what, wide in (("global_load_128", "LDG.E.128.CONSTANT"), ("async_copy_128", "LDGSTS.E.BYPASS.128"),
                           ("global_store_128", "STG.E.128")):
            narrow = wide.replace(".128", ".64")
            kernels = static_gate.parse(USAGE.format(registers=1, stack=0), SASS.format(more="").replace(wide, narrow))
            self.assertEqual([kernel.count[what] for kernel in kernels.values()], [0])

    def test_a_kernel_without_a_budget(self):
        self.assertEqual(messages(budgets=[]), ["A<64> on sm_80: 0 budgets; exactly 1 is required"])

    def test_a_kernel_with_two(self):
        twice = [{"name": name, "max_registers": 99, "require": []} for name in ("A<64>", "A<.*>")]
        self.assertIn("A<64> on sm_80: 2 budgets; exactly 1 is required", messages(budgets=twice))

    def test_a_budget_without_a_kernel(self):
        stale = {"name": "B", "max_registers": 1, "require": []}
        used = {"name": "A<64>", "max_registers": 99, "require": []}
        self.assertEqual(messages(budgets=[used, stale]), ["budget B: 0 kernels on sm_80; at least 1 is required"])

    def test_a_missing_architecture(self):
        self.assertEqual(messages(architectures=("sm_80", "sm_90a")),
                         ["budget A<.*>: 0 kernels on sm_90a; at least 1 is required"])

    def test_a_requirement_that_does_not_exist(self):
        budget = {"name": "A<64>", "max_registers": 99, "require": ["hmma"]}
        self.assertIn("budget A<64>: 'hmma' is none of", messages(budgets=[budget])[0])

    def test_names(self):
        for demangled, expected in (
                ("void a::b::Decode<(a::DType)1, 64, (bool)1>(a::P)", "Decode<1, 64, 1>"),
                ("void a::(anonymous namespace)::K<a::BFloat16, 8>(a::P<float>)", "K<BFloat16, 8>"),
                ("void a::prim::Entry<a::cuda::N<(a::DType)2> >(a::cuda::N<(a::DType)2>::Args)", "N<2>"),
                ("a::Plain(float*, int)", "Plain")):
            self.assertEqual(static_gate.short_name(demangled), expected)


class Compiled(unittest.TestCase):
    """The same, from nvcc through cuobjdump to the exit status."""

    def gate(self, source, budgets):
        with tempfile.TemporaryDirectory() as folder:
            def path(name):
                return os.path.join(folder, name)
            with open(path("a.cu"), "w", encoding="utf-8") as file:
                file.write(source)
            with open(path("budget.json"), "w", encoding="utf-8") as file:
                json.dump({"architectures": ["sm_80", "sm_90a"], "kernels": budgets}, file)
            subprocess.run([ARGUMENTS.nvcc, "-c", "-gencode=arch=compute_80,code=sm_80",
                            "-gencode=arch=compute_90a,code=sm_90a", path("a.cu"), "-o", path("a.o")], check=True)
            result = subprocess.run(
                [sys.executable, static_gate.__file__, "--cuobjdump", ARGUMENTS.cuobjdump,
                 "--budget", path("budget.json"), path("a.o")], capture_output=True, text=True, check=False)
            return result.returncode, result.stdout + result.stderr

    def test_an_array_that_registers_cannot_hold(self):
        source = """namespace n { __global__ void Spills(float* x, int i) {
            float values[64] = {};
            for (int j = 0; j < i; ++j) values[int(x[j]) & 63] += x[j];
            x[0] = values[i & 63];
          } }"""
        code, output = self.gate(source, [{"name": "Spills", "max_registers": 255, "require": []}])
        self.assertEqual(code, 1, output)
        for arch in ("sm_80", "sm_90a"):
            self.assertRegex(output, f"Spills on {arch}: 256 bytes of stack; the limit is 0")
            self.assertRegex(output, f"Spills on {arch}: [0-9]+ local loads and stores")

    def test_clean_narrow_and_over_budget(self):
        source = """namespace n { __global__ void Copies(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }
                      template <int n> __global__ void Narrow(const float* x, float* y) { y[threadIdx.x] = x[n]; }
                      template __global__ void Narrow<3>(const float*, float*); }"""
        wide = ["global_load_128", "global_store_128"]
        copies = {"name": "Copies", "max_registers": 32, "require": wide}
        narrow = {"name": "Narrow<3>", "max_registers": 32, "require": []}
        code, output = self.gate(source, [copies, narrow])
        self.assertEqual(code, 0, output)
        code, output = self.gate(source, [dict(copies, max_registers=1), dict(narrow, require=wide)])
        self.assertEqual(code, 1, output)
        self.assertRegex(output, "Copies on sm_90a: [0-9]+ registers; the budget is 1\n")
        self.assertIn("Narrow<3> on sm_80: 0 global_load_128 instructions; at least 1 is required", output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--cuobjdump", required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
