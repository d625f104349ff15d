"""Runs the GPU benchmark, times PyTorch's attention beside it, and writes gpu-bench.json and gpu-bench.png.

    gpu_bench.py --binary build/cuda/bin/gpu_bench --out DIR

PyTorch (with CUDA) and matplotlib are optional: what they would add is left out, and the output says so. Exits with the
binary's status if it fails.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

# Statistics on, H100 SXM; from the figures of published kernels, see docs/kernels.md.
DECODE_OF_COPY = 0.80
PREFILL_TFLOP_S = 300
STATS_COST = {"decode": 0.005, "prefill": 0.03}


def driver_version():
    try:
        run = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                             capture_output=True, text=True, check=True)
        return run.stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def time_torch(torch, launch, repeats=30, warm_ups=3):
    seconds = []
    for i in range(warm_ups + repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        launch()
        end.record()
        end.synchronize()
        if i >= warm_ups:
            seconds.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(seconds)


def add_torch(prefill):
    """TFLOP/s of PyTorch's own backends for the same causal shapes, contiguous KV."""
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return "not installed"
    if not torch.cuda.is_available():
        return f"{torch.__version__}, without CUDA"
    for row in prefill:
        heads, n, dim = row["heads"], row["kv_len"], row["head_dim"]
        q, k, v = (torch.randn(1, heads, n, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        flop = 4 * dim * heads * n * (n + 1) / 2
        for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
            try:
                with sdpa_kernel(backend):
                    seconds = time_torch(torch, lambda: torch.nn.functional.scaled_dot_product_attention(
                        q, k, v, is_causal=True))
                row[f"torch_{name}_tflop_s"] = flop / seconds / 1e12
            except RuntimeError as error:  # the backend does not take this device or shape
                row[f"torch_{name}_error"] = str(error).splitlines()[0]
    return torch.__version__


def verdict(ok):
    return "reached" if ok else "MISSED"


def lines(result):
    yield (f"{result['device']}, driver {result['driver']}, {result['date']}; "
           f"copy {result['copy_gb_s']:.0f} GB/s; torch: {result['torch']}")
    for row in result["decode"]:
        reached = row["kv_mb"] < 64 or row["stats_of_copy"] >= DECODE_OF_COPY
        yield (f"decode  d{row['head_dim']:<3} {row['num_seqs']:>3} x {row['kv_len']:<6} {row['heads']}/{row['kv_heads']} "
               f"heads, {row['kv_bits']} bits, {row['kv_mb']:.0f} MB: {row['gb_s']:.0f} GB/s, "
               f"with statistics {row['stats_gb_s']:.0f} "
               f"({row['stats_of_copy']:.0%} of copy: {verdict(reached)}), they cost {row['stats_cost']:.1%} "
               f"({verdict(row['stats_cost'] < STATS_COST['decode'])})")
    for row in result["prefill"]:
        beside = ", ".join(f"torch {name} {row[f'torch_{name}_tflop_s']:.0f}" for name in ("flash", "cudnn")
                           if f"torch_{name}_tflop_s" in row)
        if "warpgroups_tflop_s" in row:
            groups = (f"on warpgroups {row['warpgroups_tflop_s']:.0f}, with statistics "
                      f"{row['warpgroups_stats_tflop_s']:.0f}")
            beside = f"{groups}, {beside}" if beside else groups
        target = ""
        if row["head_dim"] == 128 and row["kv_len"] >= 8192:
            target = f" ({verdict(row['stats_tflop_s'] >= PREFILL_TFLOP_S)})"
        yield (f"prefill d{row['head_dim']:<3} {row['kv_len']:<6}: {row['tflop_s']:.0f} TFLOP/s, with statistics "
               f"{row['stats_tflop_s']:.0f}{target}, they cost {row['stats_cost']:.1%} "
               f"({verdict(row['stats_cost'] <= STATS_COST['prefill'])}); from 8-bit pages "
               f"{row['stats_8_bit_tflop_s']:.0f}{'; ' + beside if beside else ''}")
    ops = result["layer_ops"]
    yield (f"residual + norm {ops['add_norm_of_copy']:.0%} of copy, activation * up {ops['activate_of_copy']:.0%}, "
           f"sampling {ops['sample_rows']} x {ops['sample_vocab']}: {ops['sample_us']:.0f} us")


def plot(result, path):
    """False if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    decode = result["decode"]
    names = [f"d{r['head_dim']}\n{r['num_seqs']} x {r['kv_len']}\n{r['heads']}/{r['kv_heads']}\n{r['kv_bits']} bits"
             for r in decode]
    left.bar([i - 0.2 for i in range(len(decode))], [r["gb_s"] for r in decode], 0.4, label="statistics off")
    left.bar([i + 0.2 for i in range(len(decode))], [r["stats_gb_s"] for r in decode], 0.4, label="statistics on")
    left.axhline(result["copy_gb_s"], color="black", linewidth=1, label="device copy")
    left.set(title="decode", ylabel="GB/s of KV read")
    left.set_xticks(range(len(decode)), names)
    left.legend()
    series = {"tflop_s": "statistics off", "stats_tflop_s": "statistics on",
              "stats_8_bit_tflop_s": "8-bit pages, statistics on",
              "warpgroups_stats_tflop_s": "warpgroups, statistics on",
              "torch_flash_tflop_s": "torch flash", "torch_cudnn_tflop_s": "torch cuDNN"}
    for dim, style in ((128, "-"), (64, "--")):
        rows = [r for r in result["prefill"] if r["head_dim"] == dim]
        for number, (key, label) in enumerate(series.items()):
            points = [(r["kv_len"], r[key]) for r in rows if key in r]
            if points:
                right.plot(*zip(*points), style, marker="o", color=f"C{number}", label=f"{label}, d{dim}")
    right.set(title="causal prefill", xlabel="tokens", ylabel="TFLOP/s", ylim=(0, None))
    right.legend(fontsize="small")
    figure.suptitle(f"{result['device']}, driver {result['driver']}, {result['date']}")
    figure.savefig(path, dpi=120)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    run = subprocess.run([arguments.binary], stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        return run.returncode
    result = {"date": datetime.date.today().isoformat(), "driver": driver_version(), **json.loads(run.stdout)}
    result["torch"] = add_torch(result["prefill"])
    os.makedirs(arguments.out, exist_ok=True)
    with open(os.path.join(arguments.out, "gpu-bench.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    print("\n".join(lines(result)))
    drawn = plot(result, os.path.join(arguments.out, "gpu-bench.png"))
    print(f"gpu-bench: wrote {arguments.out}/gpu-bench.json" + (" and .png" if drawn else "; no plot: no matplotlib"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
