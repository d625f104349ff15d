"""The attention report: how flat attention was, by layer (and head) and by context length.

Values are means over the rows whose context (the keys they see) is within n_min to n_max, and over the heads.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from acuity.v1 import acuity_pb2 as pb

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AttentionBucket:
    """Rows that see n_min to n_max keys."""

    n_min: int
    n_max: int
    rows: int
    entropy: float  # H, nats
    normalized_entropy: float  # H / ln n: 1 is flat, 0 is one key
    effective_context: float  # e^H, keys
    effective_context_fraction: float  # e^H / n
    max_probability: float


@dataclass(frozen=True)
class HeadAttention:
    head: int
    buckets: tuple[AttentionBucket, ...]


@dataclass(frozen=True)
class LayerAttention:
    """A layer, or with attention="summary" a band of layers."""

    layer: int
    last_layer: int  # == layer, unless this is a band
    policy: str  # "softmax", "ssmax:s=0.17", ...
    buckets: tuple[AttentionBucket, ...]
    heads: tuple[HeadAttention, ...]  # empty unless attention="heads"


# The fields that are means, in AttentionBucket's order.
_MEANS = ("entropy", "normalized_entropy", "effective_context", "effective_context_fraction", "max_probability")


@dataclass(frozen=True)
class AttentionReport:
    layers: tuple[LayerAttention, ...]

    def mean(self) -> tuple[AttentionBucket, ...]:
        """The buckets averaged over all layers, a band counting as many times as it has layers."""
        weights: dict[int, int] = {}
        sums: dict[int, dict[str, float]] = {}
        first: dict[int, AttentionBucket] = {}
        for layer in self.layers:
            weight = layer.last_layer - layer.layer + 1
            for bucket in layer.buckets:
                first.setdefault(bucket.n_min, bucket)
                weights[bucket.n_min] = weights.get(bucket.n_min, 0) + weight
                total = sums.setdefault(bucket.n_min, dict.fromkeys(_MEANS, 0.0))
                for name in _MEANS:
                    total[name] += weight * getattr(bucket, name)
        return tuple(
            AttentionBucket(first[n].n_min, first[n].n_max, first[n].rows, *(sums[n][name] / weights[n] for name in _MEANS))
            for n in sorted(first))

    def to_dataframe(self, *, heads: bool = False) -> pandas.DataFrame:
        """A pandas.DataFrame with a row for each layer and bucket; with heads=True for each head too.

        Columns: layer, last_layer, policy, (head,) and the fields of AttentionBucket.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas: pip install pandas") from error
        rows: list[dict[str, Any]] = []
        for layer in self.layers:
            start = {"layer": layer.layer, "last_layer": layer.last_layer, "policy": layer.policy}
            if heads:
                if not layer.heads:
                    raise ValueError('heads: the report has none; ask for it with attention="heads"')
                rows += [{**start, "head": head.head, **dataclasses.asdict(bucket)}
                         for head in layer.heads for bucket in head.buckets]
            else:
                rows += [{**start, **dataclasses.asdict(bucket)} for bucket in layer.buckets]
        names = ["layer", "last_layer", "policy", *(["head"] if heads else []),
                 *(field.name for field in dataclasses.fields(AttentionBucket))]
        return pandas.DataFrame(rows, columns=names)

    def plot(self, *, title: Optional[str] = None) -> Figure:
        """A matplotlib Figure: H / ln n by context length, a line for each layer, and the same as a heat map.

        Without the first row, which sees one key only. The figure is not pyplot's: show it in a notebook, or `figure.savefig("attention.png")`.
        """
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise ImportError("plot() needs matplotlib: pip install matplotlib") from error
        from acuity._plot import draw

        return draw(self, title)


def report_from(message: pb.AttentionReport) -> Optional[AttentionReport]:
    """None for a report that was not made."""
    if not message.layers:
        return None
    return AttentionReport(tuple(
        LayerAttention(layer.layer, layer.last_layer, layer.policy, _buckets(layer.buckets),
                       tuple(HeadAttention(head.head, _buckets(head.buckets)) for head in layer.heads))
        for layer in message.layers))


def _buckets(messages: Any) -> tuple[AttentionBucket, ...]:
    names = [field.name for field in dataclasses.fields(AttentionBucket)]
    return tuple(AttentionBucket(**{name: getattr(m, name) for name in names}) for m in messages)
