"""The clause on what a loss must not depend on: how its arrays lie in memory, and how often its gradient is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .clauses_call import B
from .clauses_softmax import MAP, MAP_T
from .drafts import BOTH, UPSTREAM, Draft, S, Sigmoid, Softmax, T, W, Y, Z, across, draft, floats


def memory() -> Iterator[Draft]:
    """Cover strides that are not those of rows, offsets beyond 32 bits, and a second backward of one graph."""
    for end, dtype, fields in across(*BOTH):
        for layout in ("columns", "steps"):
            given: dict[str, Any] = {"flags": ("StridedInput",), "layout": layout}
            none = Softmax(class_weight=W, reduction="none", **fields)
            yield draft(f"{layout}-index-{end}", none, Z, T, dtype, upstream=UPSTREAM, sample_weight=S, **given)
            yield draft(f"{layout}-soft-{end}", none, Z, Y, dtype, upstream=UPSTREAM, **given)
            smooth = Softmax(class_weight=W, label_smoothing=0.1, **fields)
            yield draft(f"{layout}-smoothed-{end}", smooth, Z, T, dtype, upstream=2, **given)
            maps = Softmax(ignore_index=-100, **fields)
            yield draft(f"{layout}-map-{end}", maps, MAP, MAP_T, dtype, **given)
            last = Softmax(axis=-1, reduction="sum", **fields)
            yield draft(f"{layout}-last-axis-{end}", last, [Z[:2], Z[2:]], [[0, 1], [2, 1]], dtype, **given)
            spec = Sigmoid(class_weight=(0.5, (1, 2, 5)), reduction="none", **fields)
            yield draft(f"{layout}-binary-{end}", spec, Z, floats(B), dtype, **given)
        spread: dict[str, Any] = {"flags": ("StridedInput",), "layout": "spread", "upstream": [0.5] * 4}
        note = "the gradient of a sum is one number"
        spec = Softmax(reduction="none", **fields)
        yield draft(f"spread-index-{end}", spec, Z, T, dtype, note=note, **spread)
        yield draft(f"spread-soft-{end}", spec, Z, Y, dtype, note=note, **spread)
        same = [[0.5] * 3] * 4
        yield draft(f"spread-logits-{end}", spec, same, T, dtype, **spread)
        far: dict[str, Any] = {"flags": ("FarApart",), "layout": "far"}
        spec = Softmax(class_weight=W, **fields)
        yield draft(f"far-index-{end}", spec, Z, T, dtype, **far)
        yield draft(f"far-soft-{end}", spec, Z, Y, dtype, **far)
        yield draft(f"far-binary-{end}", Sigmoid(**fields), Z, floats(B), dtype, **far)
        again: dict[str, Any] = {"flags": ("SecondBackward",), "again": True}
        for kind in ("none", "sum", "mean_over_weights"):
            spec = Softmax(class_weight=W, reduction=kind, **fields)
            up: Any = UPSTREAM if kind == "none" else 0.75
            yield draft(f"again-index-{kind}-{end}", spec, Z, T, dtype, upstream=up, **again)
            yield draft(f"again-soft-{kind}-{end}", spec, Z, Y, dtype, upstream=up, **again)
        spec = Sigmoid(class_weight=(0.5, 2), **fields)
        yield draft(f"again-binary-{end}", spec, Z, floats(B), dtype, upstream=0.75, **again)
