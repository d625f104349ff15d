"""scripts/gpu-check refuses clearly what it cannot do, and the benchmark's report is drawn; neither needs a GPU.

    gpu_scripts_test.py ROOT
"""
import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = None

RESULT = {
    "device": "NVIDIA Test", "compute_capability": "9.0", "cuda_driver": 13000, "cuda_runtime": 13000, "copy_gb_s": 3000,
    "decode": [{"num_seqs": 32, "new_rows": 1, "kv_len": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128,
                "kv_bits": 16, "kv_mb": 537.0, "gb_s": 2500, "stats_gb_s": 2300, "stats_of_copy": 0.767, "stats_cost": 0.004}],
    "prefill": [{"num_seqs": 1, "new_rows": n, "kv_len": n, "heads": 32, "kv_heads": 8, "head_dim": 128,
                 "tflop_s": 330, "stats_tflop_s": 310, "stats_cost": 0.04,
                 "stats_8_bit_tflop_s": 250} for n in (4096, 8192)],
    "layer_ops": {"add_norm_of_copy": 0.9, "activate_of_copy": 0.91, "sample_us": 120, "sample_rows": 64,
                  "sample_vocab": 131072},
}


def program(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


class GpuCheck(unittest.TestCase):
    def check(self, script, *arguments, nvidia_smi=None):
        with tempfile.TemporaryDirectory() as folder:
            for tool in ("dirname", "head", "bash", "env"):  # a PATH without nvidia-smi, whatever this machine has
                os.symlink(f"/usr/bin/{tool}", os.path.join(folder, tool))
            if nvidia_smi is not None:
                program(folder, "nvidia-smi", f"#!/usr/bin/env bash\n{nvidia_smi}\n")
            run = subprocess.run([os.path.join(ROOT, "scripts", script), *arguments], env={"PATH": folder},
                                 capture_output=True, text=True, check=False)
            self.assertEqual(run.stdout, "")
            return run.returncode, run.stderr

    def test_without_a_driver(self):
        for script in ("gpu-check", "gpu-bench"):
            self.assertEqual(self.check(script),
                             (2, "gpu-check: no NVIDIA GPU here: nvidia-smi is not installed\n"))

    def test_without_a_device(self):
        code, output = self.check("gpu-check", nvidia_smi="echo No devices were found; exit 6")
        self.assertEqual((code, output), (2, "gpu-check: no NVIDIA GPU here: nvidia-smi says: No devices were found\n"))
        code, output = self.check("gpu-check", nvidia_smi="echo Failed to initialize NVML")
        self.assertEqual(code, 2)
        self.assertIn("nvidia-smi says: Failed to initialize NVML", output)

    def test_too_old_a_device(self):
        code, output = self.check("gpu-check", nvidia_smi="echo 'Tesla T4, 7.5, 550.54.15'")
        self.assertEqual((code, output),
                         (2, "gpu-check: Tesla T4 has compute capability 7.5; the kernels need 8.0 or more\n"))

    def test_arguments(self):
        code, output = self.check("gpu-check", "--quickly")
        self.assertEqual(code, 2)
        self.assertIn("unknown argument '--quickly': --no-tests, --no-sanitizer, --no-engine, "
                      "--no-bench, --out DIR", output)
        code, output = self.check("gpu-check", nvidia_smi="echo 'Tesla H1, 9.0, 550.54.15'")
        self.assertEqual(code, 2)  # no torch in this PATH's python3, as there is none
        self.assertIn("the engine needs LibTorch's CUDA half: ACUITY_LIBTORCH_CUDA=FILE", output)
        self.assertEqual(self.check("gpu-check", "--out"), (2, "gpu-check: --out needs a folder\n"))


class GpuBench(unittest.TestCase):
    def bench(self, folder, binary):
        return subprocess.run([sys.executable, os.path.join(ROOT, "tests/bench/gpu_bench.py"), "--binary", binary,
                               "--out", os.path.join(folder, "out")], capture_output=True, text=True, check=False)

    def test_report(self):
        with tempfile.TemporaryDirectory() as folder:
            binary = program(folder, "bench", f"#!/bin/sh\ncat <<'END'\n{json.dumps(RESULT)}\nEND\n")
            run = self.bench(folder, binary)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("16 bits, 537 MB: 2500 GB/s, with statistics 2300 (77% of copy: MISSED), "
                          "they cost 0.4% (reached)", run.stdout)
            self.assertIn("8192  : 330 TFLOP/s, with statistics 310 (reached), they cost 4.0% (MISSED); "
                          "from 8-bit pages 250", run.stdout)
            with open(os.path.join(folder, "out/gpu-bench.json"), encoding="utf-8") as file:
                written = json.load(file)
            self.assertEqual({key: written[key] for key in RESULT}, RESULT)
            self.assertRegex(written["date"], r"^\d{4}-\d\d-\d\d$")
            with open(os.path.join(folder, "out/gpu-bench.png"), "rb") as file:
                self.assertEqual(file.read(4), b"\x89PNG")

    def test_a_binary_that_fails(self):
        with tempfile.TemporaryDirectory() as folder:
            run = self.bench(folder, program(folder, "bench", "#!/bin/sh\necho no CUDA device >&2\nexit 2\n"))
            self.assertEqual((run.returncode, run.stderr), (2, "no CUDA device\n"))
            self.assertFalse(os.path.exists(os.path.join(folder, "out")))


if __name__ == "__main__":
    ROOT = os.path.abspath(sys.argv.pop(1))
    unittest.main()
