"""The clauses of the definition that are fields of `SoftmaxCrossEntropy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .cases import TypedArray
from .drafts import ALL, BOTH, HOT, INF, NAN, UPSTREAM, Draft, S, Softmax, T, W, Y, Z, across, draft, floats, uniform

REDUCTIONS = (
    "none",
    "sum",
    "mean_over_weights",
    "mean_over_valid",
    "mean_over_positions",
    "mean_over_batch",
    "mean_over_nonzero",
)
MAP = uniform("map", 2, 3, 2, 2)
MAP_T = np.array([[[0, 2], [1, 1]], [[-100, 2], [0, -100]]])


def targets() -> Iterator[Draft]:
    """Cover integers with one axis fewer than the logits, or distributions of their shape, sum free."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    unnormalised = [[0.5, 0.25, 1.5], [0, 0, 0.25], [3, 0, 0], [1, 1, 1]]
    zero_row = [[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    for end, dtype, fields in across(*BOTH):
        for reduction in ("none", "mean_over_weights"):
            spec = Softmax(reduction=reduction, **fields)
            up = UPSTREAM if reduction == "none" else None
            kinds = {"index": T, "one-hot": HOT, "soft": Y}
            for kind, t in kinds.items():
                flags = ("OneHotIsIndex",) if kind == "one-hot" else ()
                yield draft(f"{kind}-{reduction}-{end}", spec, Z, t, dtype, flags=flags, upstream=up)
            flags = ("NonNormalisedTargets",)
            yield draft(f"unnormalised-{reduction}-{end}", spec, Z, unnormalised, dtype, flags=flags, upstream=up)
            flags = ("NonNormalisedTargets", "AllZeroTargets")
            yield draft(f"zero-row-{reduction}-{end}", spec, Z, zero_row, dtype, flags=flags, upstream=up)
        spec = Softmax(**fields)
        for kind in ("int8", "bool"):
            yield draft(f"one-hot-{kind}-{end}", spec, Z, TypedArray.of(HOT, kind), dtype, flags=("OneHotIsIndex",))
        yield draft(f"index-int32-{end}", spec, Z, TypedArray.of(T, "int32"), dtype)
        yield draft(f"index-uint8-{end}", spec, Z, TypedArray.of(T, "uint8"), dtype)
        yield draft(f"one-position-index-{end}", spec, Z[0], np.array(1), dtype, flags=("BatchOfOne",))
        yield draft(f"one-position-soft-{end}", spec, Z[0], Y[0], dtype, flags=("BatchOfOne",))
        yield draft(f"one-row-{end}", Softmax(class_weight=W, **fields), Z[:1], T[:1], dtype, flags=("BatchOfOne",))
        yield draft(f"one-class-{end}", spec, [[3.0], [-2]], [0, 0], dtype)
        yield draft(f"no-row-{end}", spec, np.zeros((0, 3)), np.zeros(0, int), dtype, flags=("EmptyBatch",))
        yield draft(f"no-row-soft-{end}", spec, np.zeros((0, 3)), np.zeros((0, 3)), dtype, flags=("EmptyBatch",))
    many = np.zeros((1, 260))
    many[0, 257], many[0, 256] = 2.0, -1.0
    wide = np.arange(2050)[None] % 2 - 0.5
    note = "C = 2050; float16 makes 2048 of it"
    yield draft("label-2049-float32", Softmax(), wide, [2049], flags=("LabelThroughFloat",), note=note)
    yield draft("label-257-bfloat16", Softmax(), many, [257], "bfloat16", flags=("LabelThroughFloat",), note="C = 260")
    spec = Softmax(reduction="mean_over_positions")
    wrapped = ("WrappedIndex",)
    outside = {"index-of-C": [0, 3, 7, 1], "index-minus-1": [0, 1, -1, 1], "index-minus-100": [0, 1, 2, -100]}
    for name, t in outside.items():
        first = next(i for i, y in enumerate(t) if not 0 <= y < 3)
        error = ("IndexError", "targets", str(t[first]), str(first))
        yield draft(name, spec, Z, t, flags=wrapped, error=error)
        yield draft(f"{name}-is-a-ValueError", spec, Z, t, "float64", flags=wrapped, error=("IndexError", "targets"))
    error, wide = ("IndexError", "targets", "40", "2"), uniform("many-classes", 4, 40)
    yield draft("many-classes-index", spec, wide, [0, 39, 40, 1], flags=wrapped, error=error)
    yield draft("many-classes-smoothed", Softmax(label_smoothing=0.1), wide, [0, 39, 40, 1], flags=wrapped, error=error)
    error = ("ValueError", "targets")
    y = np.where(wide == wide[2, 7], NAN, abs(wide))
    yield draft("many-classes-distribution", spec, wide, y, error=(*error, "nan", "(2, 7)"))
    yield draft("distribution-negative", spec, Z, [[1, 0, -0.5], *Y[1:]], error=(*error, "-0.5"))
    yield draft("distribution-nan", spec, Z, [[1, 0, NAN], *Y[1:]], error=(*error, "nan"))
    yield draft("distribution-infinite", spec, Z, [[1, 0, INF], *Y[1:]], error=(*error, "inf"))
    yield draft("too-few", spec, Z, T[:3], error=error)
    yield draft("column", spec, Z, np.array(T)[:, None], error=error)
    yield draft("float-indices", spec, Z, floats(T), error=("TypeError", "targets"))
    yield draft("bool-indices", spec, Z, np.array(T) > 0, error=("TypeError", "targets"))
    yield draft("integer-logits", spec, TypedArray.of(Z, "int64"), T, error=("TypeError", "logits"))
    yield draft("no-class", spec, np.zeros((2, 0)), [0, 0], error=("ValueError", "logits"))


def class_weight() -> Iterator[Draft]:
    """Cover None, C floats, or a mapping; a class that is missing from a mapping."""
    error: tuple[str, ...]
    for end, dtype, fields in across(*ALL):
        yield draft(f"list-{end}", Softmax(class_weight=W, **fields), Z, T, dtype)
    for end, dtype, fields in across(*BOTH):
        mapping = Softmax(class_weight={0: 1, 1: 2, 2: 5}, **fields)
        yield draft(f"mapping-{end}", mapping, Z, T, dtype)
        missing = Softmax(class_weight={2: 5}, missing_class_weight=1, **fields)
        yield draft(f"missing-weighs-1-{end}", missing, Z, T, dtype, flags=("MissingClass",))
        missing = Softmax(class_weight={2: 5}, missing_class_weight=0, **fields)
        yield draft(f"missing-weighs-0-{end}", missing, Z, T, dtype, flags=("MissingClass",))
        yield draft(f"empty-mapping-{end}", Softmax(class_weight={}, missing_class_weight=2, **fields), Z, T, dtype)
        zero = Softmax(class_weight=(0, 2, 5), **fields)
        yield draft(f"zero-{end}", zero, Z, T, dtype)
        yield draft(f"zero-soft-{end}", zero, Z, Y, dtype)
        wide = Softmax(class_weight=(1e-6, 1, 1e6), reduction="none", **fields)
        yield draft(f"wide-range-{end}", wide, Z, T, dtype, upstream=UPSTREAM)
        inexact = Softmax(class_weight=(0.1, 0.2, 0.3), reduction="sum", **fields)
        yield draft(f"inexact-{end}", inexact, Z, T, dtype, upstream=0.7, note="weights that float32 cannot hold")
        one_row = Softmax(class_weight=W, reduction="mean_over_positions", **fields)
        yield draft(f"one-row-{end}", one_row, Z[1:2], T[1:2], dtype, flags=("BatchOfOne",))
    error = ("ValueError", "class_weight")
    yield draft("too-short", Softmax(class_weight=(1, 2)), Z, T, error=(*error, "(3,)"))
    yield draft("too-long", Softmax(class_weight=(1, 2, 3, 4)), Z, T, error=(*error, "(3,)"))
    yield draft("absent-class", Softmax(class_weight={0: 1, 1: 2}), Z, T, flags=("MissingClass",), error=(*error, "2"))
    yield draft("foreign-class", Softmax(class_weight={0: 1, 1: 1, 2: 1, 5: 1}), Z, T, error=(*error, "5"))
    softmax = {"loss": "SoftmaxCrossEntropy", "version": 1}
    yield draft("negative", Softmax(class_weight=(1, -2, 5)), Z, T, flags=("NegativeWeight",))
    yield draft("nested", {**softmax, "class_weight": [[1.0, 2.0, 5.0]]}, Z, T, error=("ValueError", "class_weight"))


def weighting() -> Iterator[Draft]:
    """Cover weights inside the sum, by the label, or outside the sum; all agree on hard targets without smoothing."""
    flags: tuple[str, ...]
    tie = [[0.4, 0.4, 0.2], [0.25, 0.5, 0.25], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]
    for kind in ("term", "label", "expected"):
        for end, dtype, fields in across(*BOTH):
            spec = Softmax(class_weight=W, weighting=kind, **fields)
            smooth = Softmax(class_weight=W, weighting=kind, label_smoothing=0.1, **fields)
            yield draft(f"{kind}-hard-{end}", spec, Z, T, dtype)
            yield draft(f"{kind}-one-hot-{end}", spec, Z, HOT, dtype, flags=("OneHotIsIndex",))
            yield draft(f"{kind}-soft-{end}", spec, Z, Y, dtype, flags=("WeightedSoftTargets",))
            flags = ("SmoothingWithWeights",)
            yield draft(f"{kind}-smoothed-{end}", smooth, Z, T, dtype, flags=flags)
            yield draft(f"{kind}-smoothed-soft-{end}", smooth, Z, Y, dtype, flags=(*flags, "WeightedSoftTargets"))
            yield draft(f"{kind}-sample-weight-{end}", smooth, Z, T, dtype, flags=flags, sample_weight=S)
            near = TypedArray.of([[0.3, 0.3 + 2**-40, 0.4 - 2**-40], *Y[1:3], [0.4, 0.4 + 2**-40, 0.2]], "float64")
            note = "not a tie, but in the logits' type"
            yield draft(f"{kind}-no-tie-{end}", spec, Z, near, dtype, flags=("ArgmaxTie",), note=note)
        none = Softmax(class_weight=W, weighting=kind, reduction="none")
        yield draft(f"{kind}-tie-float32-native", none, Z, tie, flags=("ArgmaxTie",), upstream=UPSTREAM)
        yield draft(f"{kind}-soft-float64", none, Z, Y, "float64", flags=("WeightedSoftTargets",), upstream=UPSTREAM)


def label_smoothing() -> Iterator[Draft]:
    """Cover t' = (1 - e) t + e / C."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    for end, dtype, fields in across(*BOTH):
        for e in (0.1, 0.5, 1.0):
            spec = Softmax(label_smoothing=e, **fields)
            weighted = Softmax(label_smoothing=e, class_weight=W, reduction="mean_over_positions", **fields)
            yield draft(f"{e}-index-{end}", spec, Z, T, dtype)
            yield draft(f"{e}-soft-{end}", spec, Z, Y, dtype)
            yield draft(f"{e}-weighted-{end}", weighted, Z, T, dtype, flags=("SmoothingWithWeights",), upstream=-3)
        spec = Softmax(label_smoothing=0.1, axis=1, **fields)
        last = uniform("smoothing-axis", 1, 3, 4)
        yield draft(f"over-C-not-the-last-axis-{end}", spec, last, [[0, 2, 1, 1]], dtype, flags=("SmoothingAxis",))
        spec = Softmax(label_smoothing=0.1, ignore_index=2, **fields)
        yield draft(f"ignored-{end}", spec, Z, T, dtype)
        spec = Softmax(label_smoothing=0.1, **fields)
        flags = ("ConfidentTarget",)
        yield draft(f"confident-{end}", spec, [[40.0, 0, -3], [0, 25, 1]], [0, 1], dtype, flags=flags)
        spec = Softmax(label_smoothing=0.1, class_weight=W, **fields)
        yield draft(f"one-row-{end}", spec, Z[1:2], T[1:2], dtype, flags=("BatchOfOne", "SmoothingWithWeights"))
        for kind, t in (("index", np.zeros(0, int)), ("soft", np.zeros((0, 3)))):
            yield draft(f"empty-{kind}-{end}", spec, np.zeros((0, 3)), t, dtype, flags=("EmptyBatch",))
            plain = Softmax(label_smoothing=0.1, **fields)
            yield draft(f"empty-plain-{kind}-{end}", plain, np.zeros((0, 3)), t, dtype, flags=("EmptyBatch",))
    softmax = {"loss": "SoftmaxCrossEntropy", "version": 1}
    error = ("ValueError", "label_smoothing")
    yield draft("above-1", {**softmax, "label_smoothing": 1.5}, Z, T, error=(*error, "1.5"))
    yield draft("negative", {**softmax, "label_smoothing": -0.1}, Z, T, error=(*error, "-0.1"))


def ignore_index() -> Iterator[Draft]:
    """Cover index targets equal to it, which leave numerator and denominator, whatever their logits."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    dead = [[NAN, 0, 1], *Z[1:]]
    for end, dtype, fields in across(*BOTH):
        for ignored in (-100, -1, 1, 255):
            t = [ignored, *T[1:]]
            spec = Softmax(ignore_index=ignored, class_weight=W, **fields)
            yield draft(f"{ignored}-{end}", spec, Z, t, dtype)
        for reduction in ("none", "mean_over_weights", "mean_over_valid"):
            spec = Softmax(ignore_index=-1, class_weight=W, reduction=reduction, **fields)
            up = UPSTREAM if reduction == "none" else 1.5
            name = f"nan-logits-{reduction}-{end}"
            yield draft(name, spec, dead, [-1, *T[1:]], dtype, flags=("IgnoredNaN",), upstream=up)
        spec = Softmax(ignore_index=-1, **fields)
        infinite = [[-INF, 0, 1], [INF, 0, 0], *Z[2:]]
        yield draft(f"infinite-logits-{end}", spec, infinite, [-1, -1, 2, 1], dtype, flags=("IgnoredNaN",))
        spec = Softmax(ignore_index=-100, class_weight=W, **fields)
        yield draft(f"map-{end}", spec, MAP, MAP_T, dtype, flags=("SpatialMean",))
        spec = Softmax(ignore_index=7, **fields)
        yield draft(f"never-met-{end}", spec, Z, T, dtype)
    flags = ("WrappedIndex",)
    error = ("IndexError", "targets", "-2", "3")
    yield draft("neither-valid-nor-ignored", Softmax(ignore_index=-1), Z, [0, -1, 2, -2], flags=flags, error=error)
    yield draft("with-a-distribution", Softmax(ignore_index=0), Z, Y, error=("ValueError", "ignore_index"))


def reduction() -> Iterator[Draft]:
    """Cover what the sum over positions is divided by."""
    flags: tuple[str, ...]
    for kind in REDUCTIONS:
        each = kind == "none"
        for end, dtype, fields in across(*BOTH):
            spec = Softmax(reduction=kind, class_weight=W, ignore_index=-100, **fields)
            flags = ("NonUniformUpstream",) if each else ("ScaledUpstream",)
            up: Any = UPSTREAM if each else -0.75
            t = [0, -100, 2, 1]
            yield draft(f"{kind}-hard-{end}", spec, Z, t, dtype, flags=flags, upstream=up, sample_weight=S)
            soft = Softmax(reduction=kind, class_weight=W, **fields)
            yield draft(f"{kind}-soft-{end}", soft, Z, Y, dtype, flags=flags, upstream=up)
            unweighted = Softmax(reduction=kind, **fields)
            yield draft(f"{kind}-unweighted-{end}", unweighted, Z, T, dtype)
            flags = ("SpatialMean", *flags)
            up = uniform("map-upstream", 2, 2, 2) if each else 2.5
            yield draft(f"{kind}-map-{end}", spec, MAP, MAP_T, dtype, flags=flags, upstream=up)
        half = Softmax(reduction=kind, class_weight=W, precision="exact")
        yield draft(f"{kind}-bfloat16-exact", half, Z, T, "bfloat16", upstream=UPSTREAM if each else None)
    huge = [[6e4, 0, -6e4]] * 4
    spec = Softmax(reduction="mean_over_positions")
    yield draft(
        "half-accumulation",
        spec,
        np.array(huge) / 3,
        [2] * 4,
        "float16",
        flags=("HalfAccumulation",),
        note="the sum of the losses is beyond float16, their mean is not",
    )
    softmax = {"loss": "SoftmaxCrossEntropy", "version": 1}
    yield draft("unknown", {**softmax, "reduction": "mean"}, Z, T, error=("ValueError", "reduction", "mean"))


def zero_denominator() -> Iterator[Draft]:
    """Cover the value when the denominator is exactly 0; the gradient is then 0."""
    flags: tuple[str, ...]
    for value in ("zero", "nan"):
        for end, dtype, fields in across(*BOTH):
            fields = {**fields, "zero_denominator": value}
            flags = ("AllIgnored",)
            for kind in ("mean_over_weights", "mean_over_valid", "mean_over_nonzero"):
                spec = Softmax(reduction=kind, ignore_index=-1, class_weight=W, **fields)
                yield draft(f"{value}-all-ignored-{kind}-{end}", spec, Z, [-1] * 4, dtype, flags=flags, upstream=2)
            for kind in ("sum", "mean_over_positions"):
                spec = Softmax(reduction=kind, ignore_index=-1, **fields)
                yield draft(f"{value}-all-ignored-{kind}-{end}", spec, Z, [-1] * 4, dtype, flags=flags)
            spec = Softmax(class_weight=(0, 0, 0), **fields)
            yield draft(f"{value}-zero-weights-{end}", spec, Z, T, dtype, flags=("ZeroWeights",))
            spec = Softmax(**fields)
            yield draft(f"{value}-empty-{end}", spec, np.zeros((0, 3)), np.zeros(0, int), dtype, flags=("EmptyBatch",))
    spec = Softmax(reduction="none", zero_denominator="nan", ignore_index=-1)
    yield draft("none-has-no-denominator", spec, Z, [-1] * 4, flags=("AllIgnored",), upstream=UPSTREAM)


def axis() -> Iterator[Draft]:
    """Cover which axis of the logits holds the classes."""
    z = uniform("axis", 3, 3, 3, 3)[:2]
    t = np.array([0, 2, 1] * 6).reshape(2, 3, 3)
    by_class = {"first": (0, np.moveaxis(z, 0, -1)[..., :2], t), "last": (-1, z, t), "second": (1, z, t)}
    for end, dtype, fields in across(*BOTH):
        for name, (where, logits, labels) in by_class.items():
            labels = np.minimum(labels, logits.shape[where] - 1)
            labels = labels.ravel()[: logits.size // logits.shape[where]]
            positions = np.delete(logits.shape, where)
            spec = Softmax(axis=where, class_weight=range(1, 1 + logits.shape[where]), **fields)
            yield draft(f"{name}-{end}", spec, logits, labels.reshape(positions), dtype, flags=("SpatialMean",))
        spec = Softmax(axis=-1, reduction="none", **fields)
        up = uniform("axis-upstream", 2, 2)
        yield draft(f"time-steps-{end}", spec, [Z[:2], Z[2:]], [[0, 1], [2, 1]], dtype, upstream=up)
        spec = Softmax(axis=2, **fields)
        yield draft(f"soft-{end}", spec, [Z[:2], Z[2:]], [Y[:2], Y[2:]], dtype)
        spec = Softmax(axis=-1, **fields)
        yield draft(f"one-dimensional-{end}", spec, Z[0], np.array(2), dtype, flags=("BatchOfOne",))
    yield draft("out-of-range", Softmax(axis=2), Z, T, error=("ValueError", "axis", "2"))
    yield draft("wrong-axis", Softmax(axis=-1), MAP, MAP_T, error=("ValueError", "targets"))
