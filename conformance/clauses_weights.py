"""The clause on weights of either sign: sums of weights, and of coefficients, may cancel; the definition stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .cases import TypedArray
from .clauses_call import SOFT, B
from .clauses_softmax import REDUCTIONS
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
    Y,
    Z,
    across,
    draft,
    floats,
    uniform,
)

SIGNED = [1, -0.5, 2, -0.25]
NEGATIVE_SUM = [-1, -0.5, 0.25, -2]
CANCELLED = [1, -0.5, -1, 0.5]
W_SIGNED = (1.0, -2.0, 0.5)
# Under weights of 1, -1 and 2 the second row's coefficients add up to 0, and are none.
OPPOSED = (1.0, -1.0, 2.0)
BALANCED = [[0.75, 0, 0.25], [0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 0.25, 0.75]]
PAIR = (-0.5, (1, -2, 3))
P = [[0.75, 0.125, 0.125], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5], [0.3125, 0.25, 0.4375]]


def weights_of_either_sign() -> Iterator[Draft]:
    """Cover weights of either sign, whose rows, coefficients and denominators may cancel."""
    for each in (*_hard(), *_dense(), *_binary()):
        yield replace(each, flags=("NegativeWeight", *each.flags))


def _hard() -> Iterator[Draft]:
    for end, dtype, fields in across(*ALL):
        spec = Softmax(reduction="none", class_weight=W_SIGNED, **fields)
        yield draft(f"none-{end}", spec, Z, T, dtype, upstream=UPSTREAM, sample_weight=SIGNED)
        yield draft(f"mean-{end}", Softmax(**fields), Z, T, dtype, sample_weight=SIGNED)
        confident = [[17.5, 0, -1], [0.25, 18, -2]]
        spec = Softmax(reduction="none", **fields)
        flags = ("ConfidentTarget",)
        yield draft(f"confident-{end}", spec, confident, [0, 1], dtype, flags=flags, sample_weight=[-1, -0.5])
    for end, dtype, fields in across(*BOTH):
        for kind in REDUCTIONS[1:]:
            spec = Softmax(reduction=kind, class_weight=W_SIGNED, **fields)
            yield draft(f"{kind}-{end}", spec, Z, T, dtype, upstream=1.5)
            spec = Softmax(reduction=kind, **fields)
            yield draft(f"negative-sum-{kind}-{end}", spec, Z, T, dtype, sample_weight=NEGATIVE_SUM)
        for value in ("zero", "nan"):
            flags = ("ZeroWeights",)
            spec = Softmax(zero_denominator=value, **fields)
            yield draft(f"cancelled-{value}-{end}", spec, Z, T, dtype, flags=flags, sample_weight=CANCELLED)
            spec = Softmax(zero_denominator=value, class_weight=(2, -1, 0.5), **fields)
            yield draft(f"cancelled-class-weights-{value}-{end}", spec, Z[:3], [0, 1, 1], dtype, flags=flags)
        spec = Softmax(reduction="mean_over_nonzero", class_weight=(1, 0, -1), **fields)
        yield draft(f"nonzero-{end}", spec, Z, T, dtype, sample_weight=SIGNED)
        spec = Softmax(ignore_index=-1, class_weight=W_SIGNED, **fields)
        yield draft(f"ignored-{end}", spec, Z, [0, -1, 2, 1], dtype, sample_weight=SIGNED)
        keep = [True, True, False, True]
        yield draft(f"masked-{end}", Softmax(**fields), Z, T, dtype, sample_weight=SIGNED, mask=keep)
        dead = [Z[0], [NAN, INF, 0], *Z[2:]]
        silent: dict[str, Any] = {"flags": ("ZeroWeightTimesInf",), "sample_weight": [-1, 0, 2, -0.25]}
        yield draft(f"weight-0-{end}", Softmax(**fields), dead, T, dtype, **silent)
        spec = Softmax(class_weight={0: -1, 2: 3}, missing_class_weight=-0.5, reduction="sum", **fields)
        yield draft(f"mapping-{end}", spec, Z, T, dtype)
        wide = TypedArray.of([0.1, -0.2, 0.7], "float64")
        spec = Softmax(reduction="sum", **fields)
        yield draft(f"call-float64-{end}", spec, Z, T, dtype, class_weight=wide)
        spec = Softmax(**fields)
        yield draft(f"call-integers-{end}", spec, Z, T, dtype, class_weight=TypedArray.of([3, -1, 2], "int64"))
        yield draft(f"scalar-{end}", Softmax(**fields), Z, T, dtype, sample_weight=-2)
        less = TypedArray.of(-2.5, "float64")
        yield draft(f"denominator-{end}", spec, Z, T, dtype, upstream=2, sample_weight=SIGNED, denominator=less)
        spec = Softmax(reduction="none", **fields)
        lost = [[-INF, 0, 1], [0, 2, -INF]]
        flags = ("InfiniteLogit",)
        yield draft(f"minus-infinite-{end}", spec, lost, [0, 2], dtype, flags=flags, sample_weight=[-1, 0.5])
        note = "opposite infinities"
        mean: dict[str, Any] = {"flags": flags, "note": note, "sample_weight": [-1, 0.5]}
        yield draft(f"infinities-{end}", Softmax(reduction="sum", **fields), lost, [0, 2], dtype, **mean)
        published = {"loss": "0.1248988410"}
        small: dict[str, Any] = {"sample_weight": [1, -0.5], "published": published}
        spec = Softmax(reduction="mean_over_valid", **fields)
        yield draft(f"advantages-{end}", spec, [[1, 0], [0, 2]], [0, 1], dtype, **small)


def _dense() -> Iterator[Draft]:
    flags: tuple[str, ...]
    for end, dtype, fields in across(*ALL):
        spec = Softmax(reduction="none", class_weight=W_SIGNED, **fields)
        yield draft(f"soft-none-{end}", spec, Z, Y, dtype, upstream=UPSTREAM, sample_weight=SIGNED)
        spec = Softmax(reduction="none", class_weight=OPPOSED, **fields)
        yield draft(f"sum-0-{end}", spec, Z, BALANCED, dtype, upstream=UPSTREAM)
        smooth = Softmax(class_weight=W_SIGNED, label_smoothing=0.1, reduction="mean_over_valid", **fields)
        yield draft(f"smoothed-{end}", smooth, Z, T, dtype)
    for end, dtype, fields in across(*BOTH):
        for kind in ("term", "label", "expected"):
            spec = Softmax(class_weight=W_SIGNED, weighting=kind, label_smoothing=0.1, reduction="none", **fields)
            flags = ("SmoothingWithWeights",)
            yield draft(f"smoothed-{kind}-{end}", spec, Z, T, dtype, flags=flags, upstream=UPSTREAM)
            yield draft(f"smoothed-soft-{kind}-{end}", spec, Z, Y, dtype, flags=flags, sample_weight=SIGNED)
            spec = Softmax(class_weight=W_SIGNED, weighting=kind, **fields)
            yield draft(f"soft-{kind}-{end}", spec, Z, Y, dtype, flags=("WeightedSoftTargets",), upstream=1.5)
            yield draft(f"one-hot-{kind}-{end}", spec, Z, HOT, dtype, flags=("OneHotIsIndex",))
        for kind in REDUCTIONS[1:]:
            spec = Softmax(class_weight=OPPOSED, reduction=kind, **fields)
            yield draft(f"soft-{kind}-{end}", spec, Z, BALANCED, dtype, sample_weight=[1, -0.5, 2, 1])
        spec = Softmax(class_weight=OPPOSED, reduction="none", **fields)
        lost = [[-INF, 1, 0.5], [0, 1, -INF], [0, -INF, 1], [-INF, 0, 2]]
        flags = ("InfiniteLogit", "ZeroCoefficientTimesInf")
        yield draft(f"soft-minus-infinite-{end}", spec, lost, BALANCED, dtype, flags=flags, upstream=UPSTREAM)
        two = [[-INF, -INF, 1], [NAN, 0, 1], [INF, 0, 1]]
        half, flags = [[0.5, 0.5, 0]] * 3, ("InfiniteLogit",)
        note = "coefficients that add up to 0 are not 0: opposite infinities, and rows without a softmax"
        yield draft(f"sum-0-infinite-{end}", spec, two, half, dtype, flags=flags, note=note)
        silent: dict[str, Any] = {"flags": ("ZeroWeightTimesInf",), "sample_weight": [-1, 0, 0]}
        dead = [Z[0], [NAN, 0, 1], [INF, -INF, 1]]
        yield draft(f"soft-weight-0-{end}", spec, dead, BALANCED[:3], dtype, **silent)
        confident = [[25, 0, -1], [0.25, 18, -2]]
        flags = ("ConfidentTarget",)
        t = [[0.75, 0.25, 0], [0.5, 0.5, 0]]
        yield draft(f"soft-confident-{end}", spec, confident, t, dtype, flags=flags, upstream=[1, -2])
        for value in ("zero", "nan"):
            spec = Softmax(class_weight=OPPOSED, zero_denominator=value, **fields)
            flags = ("ZeroWeights",)
            yield draft(f"soft-cancelled-{value}-{end}", spec, Z[:2], [[0.5, 0.5, 0]] * 2, dtype, flags=flags)
        spec = Softmax(inputs="log_probs", class_weight=W_SIGNED, **fields)
        yield draft(f"log_probs-{end}", spec, Z, Y, dtype, sample_weight=SIGNED)
        for clip, renormalize in ((None, None), (None, "before"), (0.3, "after")):
            options = {**fields, "clip": clip, "renormalize": renormalize}
            spec = Softmax(inputs="probs", class_weight=W_SIGNED, reduction="none", **options)
            name = f"probs-{clip}-{renormalize}-{end}"
            yield draft(name, spec, P, Y, dtype, upstream=UPSTREAM, sample_weight=SIGNED)


def _binary() -> Iterator[Draft]:
    for end, dtype, fields in across(*ALL):
        spec = Sigmoid(class_weight=PAIR, reduction="none", **fields)
        up = uniform("binary-upstream", 4, 3)
        yield draft(f"binary-{end}", spec, Z, floats(B), dtype, upstream=up, sample_weight=SIGNED)
        yield draft(f"binary-soft-{end}", spec, Z, SOFT, dtype, upstream=up)
    for end, dtype, fields in across(*BOTH):
        for kind in REDUCTIONS[1:]:
            spec = Sigmoid(class_weight=PAIR, ignore_label=-1, reduction=kind, **fields)
            t = [[-1, 0, 1], *SOFT[1:]]
            yield draft(f"binary-{kind}-{end}", spec, Z, t, dtype, sample_weight=[1, 0.5, 2, -0.25])
            spec = Sigmoid(class_weight=PAIR, average_outputs=True, reduction=kind, **fields)
            yield draft(f"binary-averaged-{kind}-{end}", spec, Z, floats(B), dtype, upstream=1.5)
        for kind in ("term", "label"):
            spec = Sigmoid(class_weight=PAIR, weighting=kind, label_smoothing=0.1, reduction="none", **fields)
            yield draft(f"binary-smoothed-{kind}-{end}", spec, Z, SOFT, dtype, flags=("SmoothingWithWeights",))
        spec = Sigmoid(class_weight=(-1, 1), average_outputs=True, reduction="none", **fields)
        yield draft(f"binary-averaged-none-{end}", spec, Z, SOFT, dtype, upstream=UPSTREAM)
        spec = Sigmoid(class_weight=(-1, 1), reduction="none", **fields)
        z, t = [INF, -INF, INF, -INF, NAN, INF], [0.0, 1, 0.5, 0.5, 0.5, 1]
        note = "opposite coefficients are not 0"
        yield draft(f"binary-infinite-{end}", spec, z, t, dtype, flags=("InfiniteLogit",), note=note)
        spec = Sigmoid(class_weight=(-1, 1), **fields)
        flags = ("ZeroWeights",)
        yield draft(f"binary-cancelled-{end}", spec, Z[:2], [[1.0, 0, 1], [0, 1, 0]], dtype, flags=flags)
        dead = [[NAN, INF, 1], *Z[1:]]
        silent: dict[str, Any] = {"flags": ("ZeroWeightTimesInf",), "sample_weight": [0, -1, 1, -2]}
        yield draft(f"binary-weight-0-{end}", spec, dead, SOFT, dtype, **silent)
        for kind in ("probs", "log_probs"):
            x = [0.25, 0.5, 0.96875, 0.125] if kind == "probs" else [-1.5, -0.25, -3, -0.0625]
            spec = Sigmoid(inputs=kind, class_weight=(-0.5, 2), reduction="none", **fields)
            yield draft(f"binary-{kind}-{end}", spec, x, [0.0, 1, 0.25, 0.75], dtype, upstream=UPSTREAM)
