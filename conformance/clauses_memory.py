"""The clause on what a loss must not depend on: how its arrays lie in memory, what was asked before, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .clauses_call import SOFT, B
from .clauses_softmax import MAP, MAP_T, REDUCTIONS
from .drafts import BOTH, HOT, UPSTREAM, Draft, S, Sigmoid, Softmax, T, W, Y, Z, across, draft, floats


def memory() -> Iterator[Draft]:
    """Cover strides that are not those of rows, offsets beyond 32 bits, a second backward and a second call."""
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
        yield from _second(end, dtype, fields)


def _second(end: str, dtype: str, fields: dict[str, Any]) -> Iterator[Draft]:
    after: dict[str, Any] = {"flags": ("SecondCall",), "before": [1, 2, 0, 0]}
    for kind in REDUCTIONS:
        up: Any = UPSTREAM if kind == "none" else 0.75
        yield draft(f"second-{kind}-{end}", Softmax(reduction=kind, **fields), Z, T, dtype, upstream=up, **after)
        spec = Softmax(reduction=kind, class_weight=W, ignore_index=-1, **fields)
        yield draft(f"second-weighted-{kind}-{end}", spec, Z, T, dtype, upstream=up, **after)
        spec = Sigmoid(reduction=kind, **fields)
        soft: dict[str, Any] = {"flags": ("SecondCall",), "before": floats(B)}
        yield draft(f"second-binary-{kind}-{end}", spec, Z, SOFT, dtype, **soft)
    spec = Softmax(reduction="mean_over_nonzero", class_weight=(0, 2, 5), **fields)
    yield draft(f"second-weight-0-{end}", spec, Z, T, dtype, **after)
    spec = Softmax(class_weight=(0, 2, 5), **fields)
    yield draft(f"second-all-0-{end}", spec, Z, [0] * 4, dtype, **after)
    spec = Softmax(class_weight=W, ignore_index=-1, **fields)
    yield draft(f"second-ignored-{end}", spec, Z, [0, -1, 2, 1], dtype, **after)
    spec = Softmax(class_weight=W, weighting="expected", label_smoothing=0.1, **fields)
    yield draft(f"second-smoothed-{end}", spec, Z, T, dtype, **after)
    given: dict[str, Any] = {"class_weight": list(W)}
    yield draft(f"second-call-weight-{end}", Softmax(**fields), Z, T, dtype, **after, **given)
    distribution: dict[str, Any] = {"flags": ("SecondCall",), "before": HOT}
    for kind in ("sum", "mean_over_weights"):
        spec = Softmax(reduction=kind, class_weight=W, **fields)
        yield draft(f"second-soft-{kind}-{end}", spec, Z, Y, dtype, **distribution)
    spec = Sigmoid(class_weight=(0.5, 2), label_smoothing=0.1, reduction="sum", **fields)
    yield draft(f"second-binary-weighted-{end}", spec, Z, SOFT, dtype, flags=("SecondCall",), before=floats(B))
    bad: dict[str, Any] = {"flags": ("SecondCall", "WrappedIndex"), "error": ("IndexError", "targets", "3", "1")}
    yield draft(f"second-bad-{end}", Softmax(**fields), Z, [0, 3, 2, 1], dtype, before=T, **bad)
