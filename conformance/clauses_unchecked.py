"""The clause on values that nothing looks at, as in a compiled graph or on a GPU: a bad one makes its row NaN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .cases import TypedArray
from .clauses_call import SOFT, B
from .clauses_softmax import MAP, MAP_T
from .drafts import (
    ALL,
    BOTH,
    HOT,
    INF,
    NAN,
    UPSTREAM,
    Draft,
    Sigmoid,
    Softmax,
    T,
    W,
    Y,
    Z,
    across,
    draft,
    floats,
    uniform,
)

# Good in the first row, then each kind of bad.
INDICES = [0, 3, -1, 1]
SHARES = [Y[0], [-0.5, 1, 0.5], [0, NAN, 1], [INF, 0, 1]]
LABELS = [[1.0, 0, 0.25], [-0.5, 0, 1], [0, INF, NAN], [0, 1, 0]]
WEIGHTS = [1, INF, -INF, NAN]


def unchecked() -> Iterator[Draft]:
    """Cover bad targets and weights where values are not looked at: their rows are NaN, and no others."""
    for each in (*_targets(), *_weights()):
        yield replace(each, flags=("UncheckedValue", *each.flags), arguments={**each.arguments, "validate": False})


def _targets() -> Iterator[Draft]:
    for end, dtype, fields in across(*ALL):
        spec = Softmax(reduction="none", class_weight=W, **fields)
        yield draft(f"index-{end}", spec, Z, INDICES, dtype, upstream=UPSTREAM)
    for end, dtype, fields in across(*BOTH):
        spec = Softmax(reduction="none", **fields)
        yield draft(f"soft-{end}", spec, Z, SHARES, dtype, upstream=UPSTREAM)
        yield draft(f"soft-half-{end}", spec, Z, TypedArray.of(SHARES, "float16"), dtype)
        smooth = Softmax(reduction="none", class_weight=W, label_smoothing=0.1, **fields)
        yield draft(f"smoothed-{end}", smooth, Z, INDICES, dtype)
        binary = Sigmoid(reduction="none", **fields)
        yield draft(f"binary-{end}", binary, Z, LABELS, dtype)
        yield draft(f"binary-integers-{end}", binary, Z, TypedArray.of([[1, 0, -2], *B[1:]], "int32"), dtype)
        for kind in ("sum", "mean_over_weights", "mean_over_valid", "mean_over_nonzero", "mean_over_positions"):
            plain, weighted = (Softmax(reduction=kind, class_weight=w, **fields) for w in (None, W))
            yield draft(f"index-{kind}-{end}", plain, Z, INDICES, dtype, upstream=2)
            yield draft(f"soft-{kind}-{end}", weighted, Z, SHARES, dtype)
            averaged = Sigmoid(reduction=kind, average_outputs=True, class_weight=(0.5, (1, 2, 5)), **fields)
            yield draft(f"binary-{kind}-{end}", averaged, Z, LABELS, dtype, upstream=1.5)
        many = uniform("many-classes", 4, 40)
        shares = np.where(many > 3.5, NAN, abs(many)) * [[0], [1], [-1], [1]]
        for kind in ("none", "sum"):
            spec = Softmax(reduction=kind, **fields)
            up: Any = UPSTREAM if kind == "none" else 2
            yield draft(f"many-classes-index-{kind}-{end}", spec, many, [0, 40, -1, 39], dtype, upstream=up)
            yield draft(f"many-classes-soft-{kind}-{end}", spec, many, shares, dtype, upstream=up)
            smooth = Softmax(reduction=kind, label_smoothing=0.1, **fields)
            yield draft(f"many-classes-smoothed-{kind}-{end}", smooth, many, [0, 40, -1, 39], dtype, upstream=up)
        keep = [True, False, True, True]
        spec = Softmax(reduction="mean_over_valid", ignore_index=-1, **fields)
        yield draft(f"ignored-{end}", spec, Z, INDICES, dtype)
        spec = Softmax(reduction="none", **fields)
        yield draft(f"masked-{end}", spec, Z, INDICES, dtype, mask=keep)
        yield draft(f"masked-soft-{end}", spec, Z, SHARES, dtype, mask=keep)
        note = "a weight of 0 does not excuse an invalid target"
        yield draft(f"of-weight-0-{end}", spec, Z, INDICES, dtype, note=note, sample_weight=[1, 0, 2, 0])
        spec = Sigmoid(reduction="none", ignore_label=-1, **fields)
        yield draft(f"binary-ignored-{end}", spec, Z, [[-1.0, 0, 1], *LABELS[1:]], dtype)
        spec = Softmax(reduction="sum", ignore_index=-100, **fields)
        yield draft(f"map-{end}", spec, MAP, np.where(MAP_T == 1, 9, MAP_T), dtype)
        for kind in ("log_probs", "probs"):
            x = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5], [0.25, 0.5, 0.25]]
            x = x if kind == "probs" else [[-1, -0.5, -2], [-0.25, -3, -2], [-1, -1, -1.5], [-2, -1, -0.5]]
            yield draft(f"{kind}-{end}", Softmax(inputs=kind, reduction="none", **fields), x, INDICES, dtype)
            yield draft(f"binary-{kind}-{end}", Sigmoid(inputs=kind, reduction="none", **fields), x, LABELS, dtype)
        spec = Softmax(reduction="none", class_weight=[2], **fields)
        yield draft(f"one-class-{end}", spec, [[0.5], [-1], [2]], [0, 1, -1], dtype)
        good: dict[str, Any] = {"note": "nothing is bad", "upstream": 2}
        yield draft(f"good-{end}", Softmax(class_weight=W, ignore_index=-1, **fields), Z, [0, -1, 2, 1], dtype, **good)


def _weights() -> Iterator[Draft]:
    for end, dtype, fields in across(*BOTH):
        for kind in ("none", "sum", "mean_over_weights", "mean_over_nonzero"):
            spec = Softmax(reduction=kind, **fields)
            yield draft(f"sample-weight-{kind}-{end}", spec, Z, T, dtype, sample_weight=WEIGHTS)
        spec = Softmax(reduction="none", **fields)
        yield draft(f"sample-weight-masked-{end}", spec, Z, T, dtype, sample_weight=WEIGHTS, mask=[True, False] * 2)
        yield draft(f"sample-weight-soft-{end}", spec, Z, Y, dtype, sample_weight=WEIGHTS)
        for name, bad in (("infinite", INF), ("nan", NAN), ("minus-infinite", -INF)):
            yield draft(f"class-weight-{name}-{end}", spec, Z, T, dtype, class_weight=[1, bad, 2])
        smooth = Softmax(reduction="none", label_smoothing=0.1, **fields)
        yield draft(f"class-weight-smoothed-{end}", smooth, Z, T, dtype, class_weight=[1, INF, 2])
        for kind in ("term", "label", "expected"):
            spec = Softmax(reduction="none", weighting=kind, **fields)
            yield draft(f"class-weight-soft-{kind}-{end}", spec, Z, Y, dtype, class_weight=[1, 2, INF])
            if kind != "expected":
                spec = Sigmoid(reduction="none", weighting=kind, **fields)
                pair = (TypedArray.of(1, "float32"), TypedArray.of([2, INF, 1], "float32"))
                yield draft(f"binary-class-weight-{kind}-{end}", spec, Z, floats(HOT), dtype, class_weight=pair)
        spec = Sigmoid(reduction="none", **fields)
        yield draft(f"binary-sample-weight-{end}", spec, Z, SOFT, dtype, sample_weight=WEIGHTS)
        for name, bad in (("infinite", INF), ("nan", NAN)):
            given: dict[str, Any] = {"denominator": TypedArray.of(bad, "float64")}
            yield draft(f"denominator-{name}-{end}", Softmax(**fields), Z, T, dtype, **given)
        # Where it is NaN, what has no coefficient is 0 still.
        last = [*INDICES[1:], -7]
        for kind, spec in (("index", Softmax), ("smoothed", partial(Softmax, label_smoothing=0.1))):
            ignoring = spec(class_weight=W, ignore_index=-7, **fields)
            yield draft(f"denominator-{kind}-{end}", ignoring, Z, last, dtype, upstream=2)
            weights = [0, *WEIGHTS[:2], 2]
            yield draft(f"denominator-{kind}-weight-0-{end}", spec(**fields), Z, T, dtype, sample_weight=weights)
        given = {"mask": [False, True, True, True], "sample_weight": [1, 0, 2, 1]}
        yield draft(f"denominator-soft-{end}", Softmax(class_weight=W, **fields), Z, SHARES, dtype, **given)
        for name, averages in (("binary", False), ("binary-rows", True)):
            spec = Sigmoid(ignore_label=-7, average_outputs=averages, **fields)
            some = [LABELS[0], [-7.0, -7, -7], [-7.0, 1, 0], LABELS[2]]
            yield draft(f"denominator-{name}-{end}", spec, Z, some, dtype, sample_weight=[0, 1, 2, 1])
        given = {"denominator": TypedArray.of(NAN, "float64")}
        spec = Softmax(inputs="log_probs", ignore_index=-1, **fields)
        yield draft(f"denominator-log_probs-{end}", spec, -abs(floats(Z)) - 0.5, [0, -1, 2, 1], dtype, **given)
    error = ("ValueError", "sample_weight")
    yield draft("length", Softmax(), Z, T, sample_weight=[1, 1, 1], error=error, note="shapes are looked at")
