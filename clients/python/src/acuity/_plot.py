"""AttentionReport.plot(). Apart, so that matplotlib is imported only when somebody plots."""

from __future__ import annotations

from typing import Optional

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acuity.attention import AttentionBucket, AttentionReport, LayerAttention

_MAX_TICKS = 12


def context_name(n: int) -> str:
    """256, 1k, 32k."""
    return str(n) if n < 1024 else f"{n // 1024}k"


def layer_name(layer: LayerAttention) -> str:
    return str(layer.layer) if layer.layer == layer.last_layer else f"{layer.layer}-{layer.last_layer}"


def _choosing(buckets: tuple[AttentionBucket, ...]) -> tuple[AttentionBucket, ...]:
    """Without the row that sees one key only: it has no choice, and H / ln n is 1 by convention."""
    return tuple(bucket for bucket in buckets if bucket.n_min > 1)


def _mean(report: AttentionReport) -> tuple[AttentionBucket, ...]:
    return _choosing(report.mean())


def draw(report: AttentionReport, title: Optional[str]) -> Figure:
    contexts = [bucket.n_min for bucket in _mean(report)]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    lines, heat = figure.subplots(1, 2)
    _draw_lines(lines, report)
    _draw_heat(figure, heat, report, contexts)
    for axes in (lines, heat):
        axes.set_xlabel("context length n, keys visible to the row")
    policies = sorted({layer.policy for layer in report.layers})
    figure.suptitle(title if title is not None else f"Attention under {', '.join(policies)}")
    return figure


def _draw_lines(axes: Axes, report: AttentionReport) -> None:
    colours = matplotlib.colormaps["viridis"]
    last = max(layer.last_layer for layer in report.layers)
    for layer in report.layers:
        buckets = _choosing(layer.buckets)
        axes.plot([b.n_min for b in buckets], [b.normalized_entropy for b in buckets],
                  color=colours(0.92 * layer.layer / max(1, last)), linewidth=1, alpha=0.75)
    mean = _mean(report)
    axes.plot([b.n_min for b in mean], [b.normalized_entropy for b in mean], color="black", linewidth=2.5,
              marker="o", markersize=4, label="mean of all layers")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda n, _: context_name(round(n)))
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("normalised entropy H / ln n")
    axes.set_title("1 is flat, 0 is one key; dark lines: first layers", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")


def _draw_heat(figure: Figure, axes: Axes, report: AttentionReport, contexts: list[int]) -> None:
    column = {n: index for index, n in enumerate(contexts)}
    values = [[float("nan")] * len(contexts) for _ in report.layers]
    for row, layer in enumerate(report.layers):
        for bucket in _choosing(layer.buckets):
            values[row][column[bucket.n_min]] = bucket.normalized_entropy
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks(range(len(contexts)), [context_name(n) for n in contexts])
    step = -(-len(report.layers) // _MAX_TICKS)
    rows = range(0, len(report.layers), step)
    axes.set_yticks(rows, [layer_name(report.layers[row]) for row in rows])
    axes.set_ylabel("layer")
    axes.set_title("normalised entropy by layer and context length", fontsize=10)
    figure.colorbar(image, ax=axes, label="H / ln n")
