#!/usr/bin/env python3
"""Compares attention under softmax with the same weights under Scalable-Softmax, on one long prompt.

    acuityd --model smollm2=m.gguf --model smollm2-ssmax=m.gguf --attention smollm2-ssmax=ssmax:auto
"""

import argparse
import uuid

import acuity
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8700")
    parser.add_argument("--models", nargs="+", default=["smollm2", "smollm2-ssmax"])
    parser.add_argument("--file", required=True, help="the prompt: a long text")
    parser.add_argument("--out", default="twin.png")
    arguments = parser.parse_args()
    with open(arguments.file, encoding="utf-8") as file:
        text = file.read()
    panels = {"normalized_entropy": "H / ln n: 1 is flat", "effective_context": "e^H: keys attended to",
              "max_probability": "largest probability"}
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = dict(zip(panels, figure.subplots(1, len(panels))))
    with acuity.Client(arguments.server) as client:
        for name in arguments.models:
            result = client.generate(text, model=name, attention="layers", max_tokens=1, cache_salt=uuid.uuid4().hex)
            report = result.prompt_attention
            assert report is not None  # attention="layers" asks for it
            mean = [bucket for bucket in report.mean() if bucket.n_min > 1]  # a row with one key has no choice
            policy = report.layers[0].policy
            for field, panel in axes.items():
                panel.plot([b.n_min for b in mean], [getattr(b, field) for b in mean], marker="o", markersize=3,
                           label=f"{name}: {policy}")
            longest = mean[-1]
            print(f"{name} ({policy}), {longest.n_min:,} keys and more: H / ln n {longest.normalized_entropy:.3f}, "
                  f"e^H {longest.effective_context:.1f}, largest probability {longest.max_probability:.3f}")
    for field, panel in axes.items():
        panel.set_xscale("log", base=2)
        panel.set_xlabel("context length n, keys")
        panel.set_title(panels[field], fontsize=10)
        panel.grid(alpha=0.3)
    axes["effective_context"].set_yscale("log", base=2)
    axes["normalized_entropy"].legend(fontsize=8)
    figure.suptitle(f"Mean of all layers over {result.usage.prompt_tokens:,} tokens")
    figure.savefig(arguments.out, dpi=150)
    print(arguments.out)


if __name__ == "__main__":
    main()
