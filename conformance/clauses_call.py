"""The clauses of `SigmoidCrossEntropy`, and of what comes with a call: weights, masks, a denominator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .cases import TypedArray
from .clauses_softmax import MAP, MAP_T, REDUCTIONS
from .drafts import (
    ALL,
    BOTH,
    HOT,
    INF,
    NAN,
    UPSTREAM,
    Draft,
    S,
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

B = [[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]]
W_LIST = list(W)
WIDE = (("float32", "exact"), ("float64", "native"))
SOFT = [[0.75, 0, 1], [0.25, 0.5, 1], [1, 0.625, 0], [0, 0.375, 0.125]]


def sigmoid() -> Iterator[Draft]:
    """Cover binary losses: a pair of weights, smoothing by halves, ignored elements; a position is an element."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    up = uniform("binary-upstream", 4, 3)
    for end, dtype, fields in across(*ALL):
        yield draft(f"pos-weight-{end}", Sigmoid(class_weight=(1, 3), **fields), Z, floats(B), dtype)
    for end, dtype, fields in across(*BOTH):
        for kind in REDUCTIONS:
            spec = Sigmoid(class_weight=(0.5, (1, 2, 5)), ignore_label=-1, reduction=kind, **fields)
            t = np.where(np.eye(4, 3) == 1, -1, SOFT)
            scale: Any = up if kind == "none" else 1.5
            yield draft(f"{kind}-{end}", spec, Z, t, dtype, upstream=scale, sample_weight=S)
        for kind in ("term", "label"):
            spec = Sigmoid(class_weight=(0.5, 3), weighting=kind, label_smoothing=0.1, **fields)
            yield draft(f"{kind}-smoothed-{end}", spec, Z, floats(B), dtype, flags=("SmoothingWithWeights",))
            yield draft(f"{kind}-soft-{end}", spec, Z, SOFT, dtype, flags=("WeightedSoftTargets",))
        spec = Sigmoid(**fields)
        yield draft(f"plain-{end}", spec, Z, floats(B), dtype)
        yield draft(f"bool-{end}", spec, Z, TypedArray.of(B, "bool"), dtype)
        yield draft(f"int64-{end}", spec, Z, np.array(B), dtype)
        yield draft(f"one-dimensional-{end}", spec, Z[0], floats(B[0]), dtype)
        yield draft(f"scalar-{end}", spec, 0.5, 1.0, dtype, flags=("BatchOfOne",))
        yield draft(f"empty-{end}", spec, np.zeros((0, 3)), np.zeros((0, 3)), dtype, flags=("EmptyBatch",))
        ignored = Sigmoid(ignore_label=-1, **fields)
        dead = [[NAN, -1.0, 0.5], *Z[1:]]
        yield draft(f"ignored-nan-{end}", ignored, dead, [[-1.0, 0, 1], *B[1:]], dtype, flags=("IgnoredNaN",))
        for value in ("zero", "nan"):
            nothing = Sigmoid(ignore_label=-1, zero_denominator=value, **fields)
            yield draft(f"all-ignored-{value}-{end}", nothing, Z, -np.ones((4, 3)), dtype, flags=("AllIgnored",))
        outputs = Sigmoid(class_weight=((1, 1, 1), (2, 3, 4)), reduction="mean_over_positions", **fields)
        yield draft(f"weights-an-output-{end}", outputs, Z, floats(B), dtype, upstream=2)
        multiple = Sigmoid(reduction="sum", **fields)
        yield draft(f"targets-above-1-{end}", multiple, [[0.5, -1]], [[1.0, 0]], dtype)
        log_p = np.log(uniform("binary-p", 4, 3, low=0.05, high=0.95))
        spec = Sigmoid(inputs="log_probs", class_weight=(1, 3), reduction="none", **fields)
        yield draft(f"log_probs-{end}", spec, log_p, floats(B), dtype, upstream=up)
        for clip in (None, 0.1, "dtype"):
            spec = Sigmoid(inputs="probs", class_weight=(1, 3), clip=clip, reduction="none", **fields)
            p = [[0.5, 0.96875, 0.25], [0.03125, 0.5, 0.75], [0.25, 0.125, 0.875], [0.0625, 0.625, 0.5]]
            yield draft(f"probs-clip-{clip}-{end}", spec, p, floats(B), dtype, upstream=up)
        spec = Sigmoid(inputs="probs", reduction="none", **fields)
        yield draft(f"probs-certain-{end}", spec, [0, 1, 0, 1], [0.0, 1, 1, 0], dtype, note="0, and infinite losses")
        spec = Sigmoid(inputs="log_probs", reduction="none", **fields)
        near, far = [-(2.0**-20), -(2.0**-10), -0.75, -0.5], [-20, -40, -60, -8]
        flags = ("ConfidentTarget",)
        note = "log(1 - p) from the side that keeps its digits"
        yield draft(f"log_probs-near-0-{end}", spec, near, [0.0] * 4, dtype, flags=flags, note=note)
        yield draft(f"log_probs-far-{end}", spec, far, [0.0] * 4, dtype, flags=flags, note=note)
        yield draft(f"log_probs-certain-{end}", spec, [0, -INF, 0], [1.0, 0, 0], dtype)
        spec = Sigmoid(inputs="probs", reduction="none", clip=1e-7, **fields)
        flags = ("ProbabilityClip",)
        yield draft(f"probs-below-the-clip-{end}", spec, [1e-9, 0, 0.5], [1.0, 1, 1], dtype, flags=flags)
    for end, dtype, fields in across(("float64", "native")):
        spec = Sigmoid(inputs="log_probs", reduction="none", **fields)
        x = [-(2.0**-40), -(2.0**-20), -0.75, -0.5, -40, -200]
        yield draft(f"log_probs-extremes-{end}", spec, x, [0.0] * 6, dtype, flags=("ConfidentTarget",))
    for e in (0.1, 0.5, 1.0):
        yield draft(f"smoothing-{e}-float32-native", Sigmoid(label_smoothing=e), Z, floats(B))
    error = ("ValueError", "targets")
    yield draft("shape", Sigmoid(), Z, floats(T), error=error)
    yield draft("negative-target", Sigmoid(), Z, [[0, -0.5, 1], *B[1:]], error=(*error, "-0.5"))
    yield draft("nan-target", Sigmoid(), Z, [[0, NAN, 1], *B[1:]], error=(*error, "nan"))
    yield draft("integer-logits", Sigmoid(), TypedArray.of(Z, "int64"), floats(B), error=("TypeError", "logits"))
    binary = {"loss": "SigmoidCrossEntropy", "version": 1}
    yield draft("expected", {**binary, "weighting": "expected"}, Z, floats(B), error=("ValueError", "weighting"))
    yield draft(
        "three-weights", {**binary, "class_weight": [1, 2, 3]}, Z, floats(B), error=("ValueError", "class_weight")
    )


def average_outputs() -> Iterator[Draft]:
    """Cover rows as positions: elements share them, and a row's weight is the mean of theirs."""
    error: tuple[str, ...]
    for end, dtype, fields in across(*BOTH):
        for kind in REDUCTIONS:
            spec = Sigmoid(average_outputs=True, class_weight=(0.5, (1, 2, 5)), reduction=kind, **fields)
            up: Any = UPSTREAM if kind == "none" else 1.5
            yield draft(f"{kind}-{end}", spec, Z, floats(B), dtype, upstream=up, sample_weight=S)
        spec = Sigmoid(average_outputs=True, ignore_label=-1, reduction="mean_over_valid", **fields)
        yield draft(f"row-ignored-{end}", spec, Z, [[-1.0, -1, -1], *SOFT[1:]], dtype)
        spec = Sigmoid(average_outputs=True, ignore_label=-1, **fields)
        yield draft(f"element-ignored-{end}", spec, Z, [[-1.0, 0, 1], *SOFT[1:]], dtype, flags=("IgnoredWeight",))
        spec = Sigmoid(average_outputs=True, **fields)
        yield draft(f"masked-row-{end}", spec, Z, SOFT, dtype, mask=[True, False, True, True])
        yield draft(f"one-dimensional-{end}", spec, Z[0], floats(B[0]), dtype, flags=("BatchOfOne",))
        yield draft(f"map-{end}", spec, MAP, np.abs(MAP) / 8, dtype, sample_weight=[[1, 2, 0], [3, 0.5, 1]])
    spec = Sigmoid(average_outputs=True)
    error = ("ValueError", "sample_weight")
    yield draft("weight-of-an-element", spec, Z, floats(B), sample_weight=np.ones((4, 3)), error=error)


def sample_weight() -> Iterator[Draft]:
    """Cover scalars and prefixes of the position shape, broadcast over the rest; they multiply the class weight."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    steps, labels = [Z[:2], Z[2:]], [[0, 1], [2, 1]]
    for end, dtype, fields in across(*BOTH):
        for kind in ("mean_over_weights", "mean_over_positions", "mean_over_nonzero", "sum"):
            spec = Softmax(reduction=kind, **fields)
            yield draft(f"{kind}-{end}", spec, Z, T, dtype, sample_weight=S)
            spec = Softmax(reduction=kind, class_weight=W, **fields)
            flags = ("SampleTimesClassWeight",)
            yield draft(f"times-class-weight-{kind}-{end}", spec, Z, T, dtype, flags=flags, sample_weight=S)
        spec = Softmax(**fields)
        yield draft(f"scalar-{end}", spec, Z, T, dtype, flags=("UnbroadcastSum",), sample_weight=2)
        yield draft(f"soft-{end}", spec, Z, Y, dtype, sample_weight=S)
        yield draft(f"integers-{end}", spec, Z, T, dtype, sample_weight=TypedArray.of([1, 2, 0, 3], "int32"))
        spec = Softmax(class_weight=(0.5, 1.5, 2.9), **fields)
        note, flags = "integers that fractions are cast to are 0, 1 and 2", ("SampleTimesClassWeight", "IntegerWeights")
        whole = TypedArray.of([1, 2, 0, 3], "int32")
        yield draft(f"integers-times-fractions-{end}", spec, Z, T, dtype, note=note, flags=flags, sample_weight=whole)
        spec = Softmax(**fields)
        inexact = TypedArray.of([0.1, 0.2, 0.7, 1.3], "float64")
        yield draft(f"float64-{end}", spec, Z, T, dtype, sample_weight=inexact)
        spec = Softmax(axis=-1, **fields)
        flags = ("PrefixSampleWeight", "UnbroadcastSum")
        yield draft(f"a-sample-of-steps-{end}", spec, steps, labels, dtype, flags=flags, sample_weight=[1, 3])
        yield draft(f"a-step-{end}", spec, steps, labels, dtype, sample_weight=[[1, 3], [0, 0.5]])
        spec = Softmax(ignore_index=-100, reduction="mean_over_nonzero", **fields)
        up = ("PrefixSampleWeight", "SpatialMean")
        yield draft(f"a-sample-of-a-map-{end}", spec, MAP, MAP_T, dtype, flags=up, sample_weight=[0, 2])
        spec = Softmax(ignore_index=-1, **fields)
        yield draft(f"of-ignored-{end}", spec, Z, [-1, 1, 2, 1], dtype, flags=("IgnoredWeight",), sample_weight=S)
        spec = Softmax(**fields)
        yield draft(f"all-zero-{end}", spec, Z, T, dtype, flags=("ZeroWeights",), sample_weight=[0, 0, 0, 0])
        spec = Sigmoid(**fields)
        yield draft(f"binary-rows-{end}", spec, Z, floats(B), dtype, flags=("PrefixSampleWeight",), sample_weight=S)
        yield from _far_from_1(end, dtype, fields)
    for end, dtype, fields in across(*WIDE):
        large = TypedArray.of([1e300, 2e299, 0, 3e300], "float64")
        yield draft(f"beyond-float32-{end}", Softmax(**fields), Z, T, dtype, sample_weight=large)
    error, spec = ("ValueError", "sample_weight"), Softmax()
    yield draft("negative", spec, Z, T, flags=("NegativeWeight",), sample_weight=[1, -1, 1, 1])
    yield draft("nan", spec, Z, T, sample_weight=[1, 1, 1, NAN], error=(*error, "nan", "3"))
    yield draft("infinite", spec, Z, T, sample_weight=[INF, 1, 1, 1], error=(*error, "inf", "0"))
    yield draft("length", spec, Z, T, sample_weight=[1, 1, 1], error=error)
    yield draft("column", spec, Z, T, sample_weight=[[1], [1], [1], [1]], error=error)
    last, flags = Softmax(axis=-1), ("PrefixSampleWeight",)
    three = [Z[:3], Z[1:]]
    yield draft("suffix", last, three, [[0, 1, 2]] * 2, flags=flags, sample_weight=[1, 2, 3], error=error)
    bad: dict[str, Any] = {"targets": [9, 1, 2, 1], "sample_weight": [0, 1, 1, 1]}
    note = "a weight of 0 does not excuse an invalid target"
    yield draft("zero-excuses-nothing", spec, Z, **bad, note=note, error=("IndexError", "targets", "9", "0"))


def _far_from_1(end: str, dtype: str, fields: dict[str, Any]) -> Iterator[Draft]:
    """Cover weights whose products with an exponential or a count float32 may not hold, of few classes and of many."""
    sizes, note = [1e30, 1e-30, 0, 3e15], "as of an importance that is the inverse of a probability"
    for classes in (3, 40):
        z, t = uniform(f"far-{classes}", 4, classes), [0, 1, 2, classes - 1]
        y = uniform(f"far-targets-{classes}", 4, classes, low=0, high=1)
        w = [(1e-30, 1.0, 2e15, 3e30)[c % 4] for c in range(classes)]
        for kind in ("none", "sum", "mean_over_weights"):
            name = f"far-{classes}-classes-{kind}"
            up: Any = UPSTREAM if kind == "none" else 0.5
            given: dict[str, Any] = {"upstream": up, "note": note}
            plain = Softmax(reduction=kind, **fields)
            yield draft(f"{name}-index-{end}", plain, z, t, dtype, sample_weight=sizes, **given)
            yield draft(f"{name}-soft-{end}", plain, z, y, dtype, sample_weight=sizes, **given)
            smoothed = Softmax(reduction=kind, label_smoothing=0.1, **fields)
            yield draft(f"{name}-smoothed-{end}", smoothed, z, t, dtype, sample_weight=sizes, **given)
            yield draft(f"{name}-index-classes-{end}", plain, z, t, dtype, class_weight=w, **given)
            yield draft(f"{name}-soft-classes-{end}", plain, z, y, dtype, class_weight=w, **given)
            yield draft(f"{name}-smoothed-classes-{end}", smoothed, z, t, dtype, class_weight=w, **given)
        large: dict[str, Any] = {"sample_weight": [1e30, 2e30, 5e29, 3e30], "note": "all of them are large"}
        yield draft(f"far-{classes}-classes-all-index-{end}", Softmax(reduction="sum", **fields), z, t, dtype, **large)
        yield draft(f"far-{classes}-classes-all-soft-{end}", Softmax(reduction="sum", **fields), z, y, dtype, **large)
        ones = Sigmoid(**fields)
        yield draft(f"far-{classes}-outputs-{end}", ones, z, (y > 0.5) * 1.0, dtype, sample_weight=sizes, note=note)
        pair = (TypedArray.of(w, "float32"), TypedArray.of(1, "float32"))
        yield draft(f"far-{classes}-outputs-classes-{end}", ones, z, y, dtype, class_weight=pair, note=note)


def mask() -> Iterator[Draft]:
    """Cover masks: False where a position is ignored, for any kind of target; a prefix of the position shape."""
    keep = [True, False, True, True]
    dead = [Z[0], [NAN, INF, 0], *Z[2:]]
    for end, dtype, fields in across(*BOTH):
        for kind in ("none", "mean_over_weights", "mean_over_valid", "mean_over_positions"):
            spec = Softmax(reduction=kind, class_weight=W, **fields)
            up = UPSTREAM if kind == "none" else None
            yield draft(f"{kind}-{end}", spec, dead, T, dtype, flags=("IgnoredNaN",), upstream=up, mask=keep)
            yield draft(f"soft-{kind}-{end}", spec, dead, Y, dtype, flags=("IgnoredNaN",), upstream=up, mask=keep)
        spec = Softmax(ignore_index=2, **fields)
        yield draft(f"and-ignored-{end}", spec, Z, T, dtype, mask=keep)
        yield draft(f"excuses-a-target-{end}", Softmax(**fields), Z, [0, 99, 2, 1], dtype, mask=keep)
        bad = [Y[0], [-1, NAN, 2], *Y[2:]]
        yield draft(f"excuses-a-distribution-{end}", Softmax(**fields), Z, bad, dtype, mask=keep)
        yield draft(f"nothing-left-{end}", Softmax(**fields), Z, T, dtype, flags=("AllIgnored",), mask=False)
        spec = Softmax(ignore_index=-100, **fields)
        yield draft(f"a-sample-of-a-map-{end}", spec, MAP, MAP_T, dtype, mask=[True, False])
        yield draft(f"binary-{end}", Sigmoid(**fields), Z, floats(B), dtype, mask=keep)
    yield draft("of-numbers", Softmax(), Z, T, mask=TypedArray.of([1, 0, 1, 1], "int64"), error=("TypeError", "mask"))
    yield draft("length", Softmax(), Z, T, mask=keep[:3], error=("ValueError", "mask"))


def call_class_weight() -> Iterator[Draft]:
    """Cover a native array of weights instead of the spec's."""
    error: tuple[str, ...]
    for end, dtype, fields in across(*BOTH):
        for kind in ("term", "label", "expected"):
            spec = Softmax(class_weight=(9, 9, 9), weighting=kind, **fields)
            yield draft(f"{kind}-{end}", spec, Z, T, dtype, class_weight=W_LIST)
            yield draft(f"{kind}-soft-{end}", spec, Z, Y, dtype, class_weight=W_LIST)
        integers = TypedArray.of([1, 2, 5], "int64")
        yield draft(f"integers-{end}", Softmax(**fields), Z, T, dtype, class_weight=integers)
        wide = TypedArray.of([0.1, 0.2, 0.3], "float64")
        yield draft(f"float64-{end}", Softmax(reduction="sum", **fields), Z, T, dtype, class_weight=wide)
        pair = (TypedArray.of(1, "float32"), TypedArray.of([2, 3, 4], "float32"))
        yield draft(f"pair-{end}", Sigmoid(**fields), Z, floats(B), dtype, class_weight=pair)
        yield from _of_elements(end, dtype, fields)
    for end, dtype, fields in across(*WIDE):
        large = TypedArray.of([1e300, 2e299, 3e300], "float64")
        yield draft(f"beyond-float32-{end}", Softmax(**fields), Z, T, dtype, class_weight=large)
    error = ("ValueError", "class_weight")
    yield draft("length", Softmax(), Z, T, class_weight=[1, 1], error=error)
    yield draft("column", Softmax(), Z, T, class_weight=[[1], [1], [1]], error=error)
    yield draft("negative", Softmax(), Z, T, flags=("NegativeWeight",), class_weight=[1, -2, 1])
    yield draft("nan", Softmax(), Z, T, class_weight=[1, 1, NAN], error=(*error, "nan", "2"))
    yield draft("infinite", Softmax(), Z, T, class_weight=[INF, 1, 1], error=(*error, "inf", "0"))


def _of_elements(end: str, dtype: str, fields: dict[str, Any]) -> Iterator[Draft]:
    """Cover pairs of which an element has its own, or what broadcasts to that."""
    own = (uniform("negative", 4, 3, low=0.25, high=3), uniform("positive", 4, 3, low=0.25, high=3))
    pairs = {
        "each": own,
        "rows": (own[0][:, :1], own[1][:, :1]),
        "row": (own[0][:1], 1.0),
        "float64": tuple(TypedArray.of(w, "float64") for w in own),
    }
    for name, pair in pairs.items():
        for kind in ("term", "label"):
            given: dict[str, Any] = {"class_weight": pair, "flags": ("ElementWeights",)}
            spec = Sigmoid(weighting=kind, ignore_label=-1, label_smoothing=0.1, **fields)
            t = np.where(np.eye(4, 3) == 1, -1, SOFT)
            yield draft(f"elements-{name}-{kind}-{end}", spec, Z, t, dtype, sample_weight=S, **given)
    for kind in ("none", "sum", "mean_over_nonzero"):
        up: Any = uniform("binary-upstream", 4, 3) if kind == "none" else 2
        zeros = (own[0], np.where(np.eye(4, 3) == 1, 0, own[1]))
        given = {"class_weight": zeros, "flags": ("ElementWeights",)}
        yield draft(
            f"elements-{kind}-{end}", Sigmoid(reduction=kind, **fields), Z, floats(B), dtype, upstream=up, **given
        )
    three, steps = (2, 2, 3), [Z[:2], Z[2:]]
    for name, pair in (("each", tuple(w.reshape(three) for w in own)), ("step", (own[0][:2], own[1][2:]))):
        given = {"class_weight": pair, "flags": ("ElementWeights",)}
        for averages in (False, True):
            spec = Sigmoid(average_outputs=averages, **fields)
            kind = "rows" if averages else "all"
            yield draft(f"elements-steps-{name}-{kind}-{end}", spec, steps, np.reshape(SOFT, three), dtype, **given)


def denominator() -> Iterator[Draft]:
    """Cover a number instead of a mean's own: the whole batch's, when this is a part of it."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    for end, dtype, fields in across(*BOTH):
        for kind in REDUCTIONS[2:]:
            spec = Softmax(reduction=kind, class_weight=W, **fields)
            yield draft(f"{kind}-{end}", spec, Z, T, dtype, flags=("SplitBatch",), upstream=2, denominator=7.5)
        spec = Softmax(class_weight=W, **fields)
        yield draft(f"array-{end}", spec, Z, T, dtype, denominator=TypedArray.of(1e-3, "float64"))
        yield draft(f"soft-{end}", spec, Z, HOT, dtype, flags=("SplitBatch", "OneHotIsIndex"), denominator=11)
        for value in ("zero", "nan"):
            zero = Softmax(zero_denominator=value, **fields)
            yield draft(f"0-{value}-{end}", zero, Z, T, dtype, flags=("ZeroWeights",), denominator=0)
        part = Softmax(ignore_index=-1, **fields)
        flags = ("SplitBatch", "AllIgnored")
        yield draft(f"part-all-ignored-{end}", part, Z, [-1] * 4, dtype, flags=flags, denominator=3)
        yield draft(f"binary-{end}", Sigmoid(**fields), Z, floats(B), dtype, denominator=5)
    error = ("ValueError", "denominator")
    yield draft("with-a-sum", Softmax(reduction="sum"), Z, T, denominator=4, error=error)
    yield draft("with-none", Softmax(reduction="none"), Z, T, denominator=4, error=error)
    yield draft("negative", Softmax(), Z, T, flags=("NegativeWeight",), denominator=-4)
