"""Acuity against llama.cpp and OpenVINO GenAI on this machine: each figure of each server in turn, in one run.

    peers.py --acuityd PATH --acuity PATH --llama DIR --openvino-python PATH --bf16 GGUF --f16 GGUF
             [--rounds N] [--threads N] [--long] [--out DIR]

The peers run in process, at 16-bit weights, as their own tools measure them (llama-bench, llama-batched-bench,
openvino_genai's ContinuousBatchingPipeline). Acuity answers over gRPC on a Unix socket, tokens streamed, its
attention statistics on: a handicap, and how people use it. Rates are medians over rounds; a round runs every server
once, so that other work on the machine disturbs all alike. Writes peers.json, and a plot with matplotlib if it is there.
"""
import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# name: (prompt tokens, output tokens, sequences at once, what is counted)
WORKLOADS = {
    "prefill 512": (512, 1, 1, "prompt tokens until the first token"),
    "prefill 2048": (2048, 1, 1, "prompt tokens until the first token"),
    "prefill 8064": (8064, 1, 1, "prompt tokens until the first token"),
    "decode": (64, 128, 1, "tokens after the first"),
    "16 at once": (128, 64, 16, "output tokens, prompts included in the time"),
}
LONG = "prefill 8064"


def run(command, timeout_s=1200):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise SystemExit(f"peers: {' '.join(command[:4])} ... failed:\n{done.stderr[-2000:]}{done.stdout[-1000:]}")
    return done.stdout


class Acuity:
    name = "Acuity"

    def __init__(self, options):
        self.options = options

    def measure(self, workload):
        prompt, output, together, _ = WORKLOADS[workload]
        options = self.options
        with tempfile.TemporaryDirectory() as work:
            address = f"unix:{work}/acuity.sock"
            with open(f"{work}/log", "w") as log:
                daemon = subprocess.Popen(
                    [options.acuityd, "--model", f"m={options.bf16}", "--dtype", "bfloat16", "--listen", address,
                     "--metrics-listen", "", "--threads", str(options.threads), "--report-min-tokens", "1"],
                    stderr=log, stdout=log)
            try:
                self._wait(address, daemon)
                # A short request first: the peers warm up too.
                self._bench(address, 16, 2, 1)
                result = self._bench(address, prompt, output, together)
            finally:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(30)
        if workload.startswith("prefill"):
            return prompt / result["time_to_first_token_seconds"]["p50"]
        if workload == "decode":
            return 1 / result["inter_token_seconds"]["mean"]
        return result["output_tokens_per_second"]

    def _bench(self, address, prompt, output, together):
        return json.loads(run([self.options.acuity, "--server", address, "bench", "--json", "--requests", str(together),
                               "--concurrency", str(together), "--prompt-tokens", str(prompt),
                               "--max-tokens", str(output)]))

    def _wait(self, address, daemon):
        while subprocess.run([self.options.acuity, "--server", address, "health"], capture_output=True).returncode:
            if daemon.poll() is not None:
                raise SystemExit("peers: acuityd ended before it served")
            time.sleep(0.05)


class Llama:
    name = "llama.cpp"

    def __init__(self, options):
        self.options = options

    def measure(self, workload):
        prompt, output, together, _ = WORKLOADS[workload]
        threads = ["-t", str(self.options.threads)]
        if together > 1:
            text = run([f"{self.options.llama}/llama-batched-bench", "-m", self.options.bf16, *threads, "-npp",
                        str(prompt), "-ntg", str(output), "-npl", str(together), "-c",
                        str(together * (prompt + output) + 256), "-fa", "on", "--output-format", "jsonl"])
            row = next(json.loads(line) for line in text.splitlines() if line.startswith("{"))
            return together * output / row["t"]
        if workload == "decode":
            shape = ["-p", "0", "-n", str(output), "-d", str(prompt)]
        else:
            shape = ["-p", str(prompt), "-n", "0"]
        rows = json.loads(run([f"{self.options.llama}/llama-bench", "-m", self.options.bf16, *threads, *shape, "-fa",
                               "1", "-r", "1", "-o", "json"]))
        return rows[0]["avg_ts"]


class OpenVino:
    name = "OpenVINO GenAI"

    def __init__(self, options):
        self.options = options

    def measure(self, workload):
        prompt, output, together, _ = WORKLOADS[workload]
        text = run([self.options.openvino_python, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                               "peers_openvino.py"),
                    self.options.f16, str(prompt), str(output), str(together), str(self.options.threads)])
        result = json.loads(text.splitlines()[-1])
        if workload.startswith("prefill"):
            return prompt / result["first_token_s"]
        if workload == "decode":
            return (output - 1) / (result["total_s"] - result["first_token_s"])
        return result["output_tokens"] / result["total_s"]


def cpu():
    with open("/proc/cpuinfo") as file:
        lines = file.read().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    return model, [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {f}" in flags]


def plot(results, path):
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    names = list(results)
    servers = list(results[names[0]])
    figure, axes = plt.subplots(1, len(names), figsize=(2.3 * len(names), 3), constrained_layout=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        rates = [results[name][s] for s in servers]
        bars = axis.bar(range(len(servers)), rates, color=["#d1495b", "#8d99ae", "#b8c0cc"][:len(servers)])
        axis.bar_label(bars, [f"{r:.0f}" for r in rates], fontsize=8)
        axis.set_xticks(range(len(servers)), [s.split()[0] for s in servers], fontsize=8)
        axis.set_title(name, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("tokens per second")
    figure.savefig(path, dpi=120)
    return True


def main():
    parser = argparse.ArgumentParser()
    for name in ("acuityd", "acuity", "llama", "openvino-python", "bf16", "f16"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--long", action="store_true", help=f"also {LONG} (minutes each)")
    parser.add_argument("--out", default=".")
    options = parser.parse_args()

    servers = [Acuity(options), Llama(options), OpenVino(options)]
    model, isa = cpu()
    print(f"{model} ({', '.join(isa) or 'no AVX2'}), {options.threads} threads, medians of {options.rounds} rounds, "
          "tokens per second", flush=True)
    print(f"{'':16}" + "".join(f"{s.name:>16}" for s in servers) + f"{'ratio to best':>16}", flush=True)
    results, rounds = {}, {}
    for workload in WORKLOADS:
        if workload == LONG and not options.long:
            continue
        rates = {s.name: [] for s in servers}
        for number in range(options.rounds):
            for server in servers:
                if sys.stderr.isatty():
                    print(f"\r{workload}: round {number + 1} of {options.rounds}, {server.name:16}", end="",
                          file=sys.stderr, flush=True)
                rates[server.name].append(server.measure(workload))
        if sys.stderr.isatty():
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
        medians = {name: statistics.median(values) for name, values in rates.items()}
        best = max(rate for name, rate in medians.items() if name != Acuity.name)
        results[workload], rounds[workload] = medians, rates
        print(f"{workload:16}" + "".join(f"{medians[s.name]:16.1f}" for s in servers) +
              f"{medians[Acuity.name] / best:16.2f}", flush=True)
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "peers.json"), "w") as file:
        json.dump({"cpu": model, "isa": isa, "threads": options.threads, "date": time.strftime("%Y-%m-%d"),
                   "medians": results, "rounds": rounds}, file, indent=1)
    if plot(results, os.path.join(options.out, "peers.png")):
        print(f"plot: {options.out}/peers.png")


if __name__ == "__main__":
    main()
