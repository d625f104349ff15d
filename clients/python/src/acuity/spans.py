"""Watched parts of a prompt: how much attention each layer and head gives to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from acuity.v1 import acuity_pb2 as pb

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class HeadSpans:
    """Means over the report's rows."""

    head: int
    mass: tuple[float, ...]  # of each part that `watch` names: the sum of its tokens' probabilities, 0 to 1
    normalized_entropy: float  # of the same rows, H / ln n
    effective_context: float  # e^H, keys
    max_probability: float


@dataclass(frozen=True)
class LayerSpans:
    layer: int
    heads: tuple[HeadSpans, ...]


@dataclass(frozen=True)
class SpanReport:
    rows: int
    layers: tuple[LayerSpans, ...]

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas.DataFrame with a row for each layer, head and watched part.

        Columns: layer, head, span (its place in `watch`), mass, and the head's other fields.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas: pip install pandas") from error
        names = ["layer", "head", "span", "mass", "normalized_entropy", "effective_context", "max_probability"]
        rows = [(layer.layer, head.head, span, mass, head.normalized_entropy, head.effective_context,
                 head.max_probability)
                for layer in self.layers for head in layer.heads for span, mass in enumerate(head.mass)]
        return pandas.DataFrame(rows, columns=names)


def spans_from(message: pb.SpanReport) -> Optional[SpanReport]:
    """None for a report that was not made."""
    if not message.layers:
        return None
    return SpanReport(message.rows, tuple(
        LayerSpans(layer.layer, tuple(_head(head) for head in layer.heads)) for layer in message.layers))


def _head(m: pb.HeadSpans) -> HeadSpans:
    return HeadSpans(m.head, tuple(m.mass), m.normalized_entropy, m.effective_context, m.max_probability)
