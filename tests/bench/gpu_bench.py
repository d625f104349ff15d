"""Runs the GPU benchmarks, times PyTorch's and FlashInfer's attention beside them, and writes gpu-bench.json and
gpu-bench.png.

    gpu_bench.py --binary build/cuda/bin/gpu_bench [--engine build/cuda/bin/step_bench] --out DIR

PyTorch (with CUDA), FlashInfer and matplotlib are optional, and so is an engine that runs: what they would add is left
out, and the output says so. Exits with the binary's status if it fails.
"""
import argparse
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys

# Statistics on, H100 SXM; from the figures of published kernels, see docs/kernels.md.
DECODE_OF_COPY = 0.80
PREFILL_TFLOP_S = 300
WARPGROUPS_TFLOP_S = 550
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


BEYOND_L2 = 256 << 20  # bytes of keys and values that take turns, as in gpu_bench.cc
PAGE = 16


def flashinfer_launch(torch, flashinfer, row, workspace):
    """One layer's paged attention over the row's batch, as a function that launches it."""
    sequences, queries, n = row["num_seqs"], row["new_rows"], row["kv_len"]
    heads, kv_heads, dim = row["heads"], row["kv_heads"], row["head_dim"]
    pages = (n + PAGE - 1) // PAGE
    kv_bits = row.get("kv_bits", 16)
    kv_type = torch.float8_e4m3fn if kv_bits == 8 else torch.bfloat16
    kv_bytes = 2 * sequences * pages * PAGE * kv_heads * dim * kv_bits // 8
    caches = [torch.randn(2, sequences * pages, kv_heads, PAGE, dim, device="cuda").to(kv_type)
              for _ in range(-(-BEYOND_L2 // kv_bytes))]
    q = torch.randn(sequences * queries, heads, dim, device="cuda", dtype=torch.bfloat16)
    indptr = torch.arange(sequences + 1, dtype=torch.int32, device="cuda")
    indices = torch.randperm(sequences * pages, device="cuda").int()
    last = torch.full((sequences,), (n - 1) % PAGE + 1, dtype=torch.int32, device="cuda")
    if queries == 1:
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND", use_tensor_cores=heads > kv_heads)
        wrapper.plan(indptr * pages, indices, last, heads, kv_heads, dim, PAGE, q_data_type=torch.bfloat16,
                     kv_data_type=kv_type)
    else:
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "HND")
        wrapper.plan(indptr * queries, indptr * pages, indices, last, heads, kv_heads, dim, PAGE, causal=True,
                     q_data_type=torch.bfloat16, kv_data_type=kv_type)
    turn = itertools.cycle(caches)

    def launch():
        keys, values = next(turn)
        return wrapper.run(q, (keys, values))
    return launch


def add_flashinfer(result):
    """GB/s and TFLOP/s of FlashInfer's paged kernels, planned beforehand, without statistics."""
    try:
        import flashinfer
        import torch
    except ImportError:
        return "not installed"
    if not torch.cuda.is_available():
        return f"{flashinfer.__version__}, without CUDA"
    workspace = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
    for row in [*result["decode"], *result["prefill"]]:
        try:
            seconds = time_torch(torch, flashinfer_launch(torch, flashinfer, row, workspace))
        except Exception as error:  # its kernels are compiled now, for this device and shape
            row["flashinfer_error"] = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        if row["new_rows"] == 1:
            row["flashinfer_gb_s"] = row["kv_mb"] / 1e3 / seconds
        else:
            n = row["kv_len"]
            row["flashinfer_tflop_s"] = 4 * row["head_dim"] * row["heads"] * n * (n + 1) / 2 / seconds / 1e12
    return flashinfer.__version__


def run_engine(binary):
    """What step_bench measured, or why it did not."""
    run = subprocess.run([binary], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return {"error": (run.stderr.strip() or f"status {run.returncode}").splitlines()[-1]}
    return json.loads(run.stdout)


def verdict(ok):
    return "reached" if ok else "MISSED"


BESIDE = {"torch flash": "torch_flash_tflop_s", "torch cuDNN": "torch_cudnn_tflop_s", "FlashInfer": "flashinfer_tflop_s"}


def lines(result):
    yield (f"{result['device']}, driver {result['driver']}, {result['date']}; "
           f"copy {result['copy_gb_s']:.0f} GB/s; torch: {result['torch']}; FlashInfer: {result['flashinfer']}")
    for row in result["decode"]:
        reached = row["kv_mb"] < 64 or row["stats_of_copy"] >= DECODE_OF_COPY
        yield (f"decode  d{row['head_dim']:<3} {row['num_seqs']:>3} x {row['kv_len']:<6} {row['heads']}/{row['kv_heads']} "
               f"heads, {row['kv_bits']} bits, {row['kv_mb']:.0f} MB: {row['gb_s']:.0f} GB/s, "
               f"with statistics {row['stats_gb_s']:.0f} "
               f"({row['stats_of_copy']:.0%} of copy: {verdict(reached)}), they cost {row['stats_cost']:.1%} "
               f"({verdict(row['stats_cost'] < STATS_COST['decode'])})"
               + (f"; FlashInfer {row['flashinfer_gb_s']:.0f}" if "flashinfer_gb_s" in row else ""))
    for row in result["prefill"]:
        has_target = row["head_dim"] == 128 and row["kv_len"] >= 8192
        target = f" ({verdict(row['stats_tflop_s'] >= PREFILL_TFLOP_S)})" if has_target else ""
        beside = []
        if "warpgroups_tflop_s" in row:
            reached = verdict(row["warpgroups_stats_tflop_s"] >= WARPGROUPS_TFLOP_S)
            beside.append(f"on warpgroups {row['warpgroups_tflop_s']:.0f}, with statistics "
                          f"{row['warpgroups_stats_tflop_s']:.0f}" + (f" ({reached})" if has_target else ""))
        beside += [f"{name} {row[key]:.0f}" for name, key in BESIDE.items() if key in row]
        yield (f"prefill d{row['head_dim']:<3} {row['kv_len']:<6}: {row['tflop_s']:.0f} TFLOP/s, with statistics "
               f"{row['stats_tflop_s']:.0f}{target}, they cost {row['stats_cost']:.1%} "
               f"({verdict(row['stats_cost'] <= STATS_COST['prefill'])}); from 8-bit pages "
               f"{row['stats_8_bit_tflop_s']:.0f}{'; ' + ', '.join(beside) if beside else ''}")
    ops = result["layer_ops"]
    yield (f"residual + norm {ops['add_norm_of_copy']:.0%} of copy, activation * up {ops['activate_of_copy']:.0%}, "
           f"sampling {ops['sample_rows']} x {ops['sample_vocab']}: {ops['sample_us']:.0f} us")
    engine = result.get("engine", {"error": "not asked for"})
    if "error" in engine:
        yield f"engine: not measured: {engine['error']}"
        return
    for row in engine["steps"]:
        yield (f"engine, {engine['model']}, {row['sequences']:>2} at once, attention "
               f"{'measured' if row['measured'] else 'not measured'}: {row['decode_tokens_per_s']:.0f} tokens/s, "
               f"a step {row['decode_step_us']:.0f} us; prompts {row['prompt_tokens_per_s']:.0f} tokens/s")


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
    beside = [(i, r["flashinfer_gb_s"]) for i, r in enumerate(decode) if "flashinfer_gb_s" in r]
    if beside:
        left.plot(*zip(*beside), "kx", label="FlashInfer")
    left.axhline(result["copy_gb_s"], color="black", linewidth=1, label="device copy")
    left.set(title="decode", ylabel="GB/s of KV read")
    left.set_xticks(range(len(decode)), names)
    left.legend()
    series = {"tflop_s": "statistics off", "stats_tflop_s": "statistics on",
              "stats_8_bit_tflop_s": "8-bit pages, statistics on",
              "warpgroups_stats_tflop_s": "warpgroups, statistics on", **{key: name for name, key in BESIDE.items()}}
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
    parser.add_argument("--engine")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    run = subprocess.run([arguments.binary], stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        return run.returncode
    result = {"date": datetime.date.today().isoformat(), "driver": driver_version(), **json.loads(run.stdout)}
    result["torch"] = add_torch(result["prefill"])
    result["flashinfer"] = add_flashinfer(result)
    if arguments.engine:
        result["engine"] = run_engine(arguments.engine)
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
