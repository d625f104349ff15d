"""From the report of `acuity calibrate` to what is kept of it, its tables and its plot.

    results.py keep REPORT      # writes results.json beside this file: the losses, without entropies and sidecars
    results.py tables           # prints results.json as docs/calibration.md has it
    results.py plot PNG         # loss by position (needs matplotlib)
"""
import json
import pathlib
import sys

RESULTS = pathlib.Path(__file__).with_name("results.json")
WITHIN, BEYOND = "loss_within", "loss_beyond"


def keep(report):
    def slim(passes):
        return [{k: v for k, v in p.items() if k not in ("entropy_nats", "sidecar", "seconds")} for p in passes]

    report["calibration"] = slim(report["calibration"])
    for text in report["held_out"]:
        text["passes"] = slim(text["passes"])
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def texts(results):
    """(name, passes) of the calibration text and of each held-out one."""
    yield f"{results['texts'][0]} (calibration)", results["calibration"]
    for text in results["held_out"]:
        yield text["text"], text["passes"]


def tables(results):
    for name, passes in texts(results):
        print(f"| {name} | within | beyond |\n|---|---|---|")
        for p in passes:
            print(f"| {p['name']} | {p[WITHIN]:.4f} | {p[BEYOND]:.4f} |")
        print()


def plot(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained, shown = results["trained_context"], list(texts(results))
    size = (4 * len(shown), 3.2)
    figure, axes = pyplot.subplots(1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (name, passes) in zip(axes[0], shown):
        names = ["as trained", "one global factor", results["chosen"]]
        for p in sorted((p for p in passes if p["name"] in names), key=lambda p: names.index(p["name"])):
            bins = p["loss_by_position"]
            middle = [(b["begin"] + b["end"]) / 2 for b in bins]
            axis.plot(middle, [b["loss"] for b in bins], marker=".", label=p["name"])
        axis.axvline(trained, color="gray", linestyle=":")
        axis.set(title=name, xlabel="position (tokens)", xticks=range(0, results["to_context"] + 1, trained // 2))
    axes[0][0].set(ylabel="loss (nats a token)")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main():
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "keep":
        return keep(json.loads(pathlib.Path(sys.argv[2]).read_text()))
    results = json.loads(RESULTS.read_text())
    if command == "tables":
        return tables(results)
    if command == "plot":
        return plot(results, sys.argv[2])
    raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
