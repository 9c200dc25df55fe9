"""The clauses on what is handed in and what counts nothing: inputs, zero coefficients, infinite logits, numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .drafts import (
    ALL,
    BOTH,
    DTYPES,
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
    uniform,
)
from .floats import FORMATS

P = [[0.75, 0.125, 0.0625], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5], [0.3125, 0.5, 0.4375]]


def inputs() -> Iterator[Draft]:
    """Cover logits, log-probabilities, and probabilities, clipped and renormalized; the gradient is to them."""
    flags: tuple[str, ...]
    error: tuple[str, ...]
    log_p = [[-0.25, -2, -3], [-4, -0.125, -2.5], [-1, -1, -1.25], [-0.5, -1, -8]]
    for end, dtype, fields in across(*BOTH):
        spec = Softmax(inputs="log_probs", class_weight=W, **fields)
        yield draft(f"log_probs-index-{end}", spec, log_p, T, dtype)
        yield draft(f"log_probs-soft-{end}", spec, log_p, Y, dtype)
        none = Softmax(inputs="log_probs", reduction="none", label_smoothing=0.1, **fields)
        yield draft(f"log_probs-smoothed-{end}", none, log_p, T, dtype, upstream=UPSTREAM)
        for renormalize in (None, "before", "after"):
            for clip in (None, 0.1, "dtype"):
                spec = Softmax(inputs="probs", class_weight=W, clip=clip, renormalize=renormalize, **fields)
                name = f"probs-clip-{clip}-renormalize-{renormalize}"
                yield draft(f"{name}-index-{end}", spec, P, T, dtype, flags=("ProbabilityClip",) if clip else ())
            soft = Softmax(inputs="probs", clip=0.1, renormalize=renormalize, reduction="none", **fields)
            yield draft(f"probs-renormalize-{renormalize}-soft-{end}", soft, P, Y, dtype, upstream=UPSTREAM)
        spec = Softmax(inputs="probs", clip=1e-7, **fields)
        low = [[1e-9, 0.25, 0.5], [0.5, 0.25, 0.0]]
        yield draft(f"probs-below-the-clip-{end}", spec, low, [0, 2], dtype, flags=("ProbabilityClip",))
        spec = Softmax(inputs="probs", **fields)
        yield draft(f"probs-zero-{end}", spec, [[0, 0.5, 0.5]], [0], dtype, note="an infinite loss, not a large one")
        yield draft(f"probs-zero-elsewhere-{end}", spec, [[0, 0.5, 0.5]], [[0, 1.0, 0]], dtype, flags=_NO_TERM)
        tiny = [[1 - 2**-20, 2**-20], [2**-30, 1 - 2**-24]]
        yield draft(f"probs-near-1-{end}", spec, tiny, [0, 1], dtype, flags=("ConfidentTarget",))
        minus = [[-0.0, 0.5, 0.5], [0.5, -0.0, 0.5], [0.5, 0.5, -0.0]]
        of_none: dict[str, Any] = {"reduction": "none", "inputs": "probs", **fields}
        note = "-0 is 0: of the logarithm, and of which side the slope is infinite"
        for clip in (None, 0.0):
            spec = Softmax(clip=clip, **of_none)
            yield draft(f"probs-minus-0-clip-{clip}-index-{end}", spec, minus, [0, 0, 2], dtype, note=note)
            soft = [[0.5, 0.5, 0], [1, 0, 0], [0, 0.5, 0.5]]
            yield draft(f"probs-minus-0-clip-{clip}-soft-{end}", spec, minus, soft, dtype, note=note)
        spec = Sigmoid(**of_none)
        yield draft(f"probs-minus-0-binary-{end}", spec, [-0.0, -0.0, -0.0], [1.0, 0, 0.5], dtype, note=note)
        spec = Sigmoid(**{**of_none, "inputs": "log_probs"})
        yield draft(f"log_probs-minus-0-binary-{end}", spec, [-0.0, -0.0, -0.0], [1.0, 0, 0.5], dtype, note=note)
        yield from _no_probabilities(end, dtype, fields)
    for dtype in ("float16", "bfloat16", "float64"):
        spec = Softmax(inputs="probs", clip="dtype", reduction="none")
        flags = ("ProbabilityClip",)
        yield draft(f"probs-clip-dtype-{dtype}", spec, [[0, 0.5], [0.75, 0.25]], [0, 1], dtype, flags=flags)
    softmax = {"loss": "SoftmaxCrossEntropy", "version": 1}
    yield draft("clip-of-logits", {**softmax, "clip": 0.1}, Z, T, error=("ValueError", "clip"))
    error = ("ValueError", "renormalize")
    yield draft("renormalized-logits", {**softmax, "renormalize": "after"}, Z, T, error=error)
    yield draft("clip-of-half", {**softmax, "inputs": "probs", "clip": 0.5}, P, T, error=("ValueError", "clip", "0.5"))


def _no_probabilities(end: str, dtype: str, fields: dict[str, Any]) -> Iterator[Draft]:
    """Cover numbers that are no probabilities: a term that does not exist is NaN, or silent where it counts 0."""
    flags = ("NoProbability",)
    up = uniform("upstream-no-probability", 12)
    x = [[-0.25, 0.5, 0.75], [0.5, -0.25, 0.75], [INF, 0.5, 0.25], [0.5, INF, -INF], [1.5, 0.25, 0.5], [0.25, NAN, -2]]
    spec = Softmax(inputs="probs", reduction="none", **fields)
    yield draft(f"no-probs-index-{end}", spec, x, [0] * 6, dtype, flags=flags, upstream=up[:6])
    soft = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0.25, 0.25], [0.5, 0, 0]]
    yield draft(f"no-probs-soft-{end}", spec, x, soft, dtype, flags=flags, upstream=up[:6])
    silent: dict[str, Any] = {"flags": (*flags, "ZeroWeightTimesInf"), "sample_weight": [0, 1, 0, 1, 2, 1]}
    yield draft(f"no-probs-weight-0-{end}", Softmax(inputs="probs", **fields), x, [0] * 6, dtype, **silent)
    spec = Softmax(inputs="probs", clip=0.1, reduction="none", **fields)
    yield draft(f"no-probs-clip-{end}", spec, x, soft, dtype, flags=(*flags, "ProbabilityClip"), upstream=up[:6])
    sums = [[-1, -3, -4], [0.5, -0.5, 0], [-0.25, 0.75, 0.5], [INF, 0.5, 0.25], [0, 0, 0], [0.5, NAN, 0.5], [3, 1, 4]]
    t = [[0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    for renormalize in ("before", "after"):
        for clip in (None, 0.1):
            spec = Softmax(inputs="probs", renormalize=renormalize, clip=clip, reduction="none", **fields)
            name = f"no-probs-clip-{clip}-renormalize-{renormalize}"
            yield draft(f"{name}-index-{end}", spec, sums, [0, 0, 1, 0, 2, 0, 1], dtype, flags=flags, upstream=up[:7])
            yield draft(f"{name}-soft-{end}", spec, sums, t, dtype, flags=flags, upstream=up[:7])
            lost = [[-INF, 0.5, 0.25], [0.5, 0.25, 0.25]]
            halves = [[0, 0.5, 0.5], [0.5, 0.5, 0]]
            yield draft(f"{name}-minus-infinite-{end}", spec, lost, halves, dtype, flags=flags)
            dead: list[Any] = [[0, 0, 0], [NAN, 0.5, 0.5], [INF, 1, 0], [1, -1, 0], [0.25, 0.25, 0.5]]
            none: list[Any] = [[0, 0, 0]] * 4 + [[1, 1, 1]]
            yield draft(f"{name}-no-target-{end}", spec, dead, none, dtype, flags=("AllZeroTargets",))
    spec = Softmax(inputs="probs", renormalize="after", clip=0, reduction="none", **fields)
    yield draft(f"no-probs-clip-0-renormalize-after-{end}", spec, sums[:5], t[:5], dtype, flags=flags)
    spec = Softmax(inputs="log_probs", reduction="none", **fields)
    any_numbers = [[0.5, 1.5, -2], [INF, 0, -1], [INF, 0.25, NAN], [2, -INF, 3]]
    note = "softmax's are whatever numbers they are"
    yield draft(f"log_probs-any-{end}", spec, any_numbers, [0, 0, 1, 2], dtype, flags=flags, note=note)

    x_binary = [INF, INF, -INF, -INF, 2, 2, -1, -1, NAN, 1.5, -0.5, NAN]
    t_binary = [0.0, 1, 0, 1, 0, 1, 0, 1, 0, 0.5, 0.5, 1]
    spec = Sigmoid(inputs="probs", reduction="none", **fields)
    yield draft(f"no-probs-binary-{end}", spec, x_binary, t_binary, dtype, flags=flags, upstream=up)
    spec = Sigmoid(inputs="probs", clip=0.1, reduction="none", **fields)
    yield draft(f"no-probs-binary-clip-{end}", spec, x_binary, t_binary, dtype, flags=flags, upstream=up)
    log_p = [0.1640625, 0.1640625, INF, INF, -INF, -INF, 3, 0.5, 0, 0, NAN, NAN]
    t_log = [0.0, 1, 0, 1, 0, 1, 0.5, 0.25, 0, 1, 0, 1]
    spec = Sigmoid(inputs="log_probs", reduction="none", **fields)
    yield draft(f"no-log_probs-binary-{end}", spec, log_p, t_log, dtype, flags=flags, upstream=up)
    for kind, values in (("probs", [1.5, -0.5, INF, -INF]), ("log_probs", [1.5, INF, 0.25, NAN])):
        spec = Sigmoid(inputs=kind, class_weight=(0, 2), reduction="none", **fields)
        silent = {"flags": (*flags, "ZeroCoefficientTimesInf"), "upstream": up[:4]}
        yield draft(f"no-{kind}-binary-weight-0-{end}", spec, values, [0.0, 0, 0.5, 0], dtype, **silent)
        row = [[0.5, 0.25], values[:2]] if kind == "probs" else [[-0.5, -0.25], values[:2]]
        spec = Sigmoid(inputs=kind, average_outputs=True, reduction="sum", **fields)
        part: dict[str, Any] = {"flags": (*flags, "ZeroWeightTimesInf"), "sample_weight": [1, 0]}
        yield draft(f"no-{kind}-binary-averaged-{end}", spec, row, [[1.0, 0], [0, 1]], dtype, **part)


_NO_TERM = ("ZeroCoefficientTimesInf",)


def zero_coefficients() -> Iterator[Draft]:
    """Cover what has coefficient 0 and contributes exactly 0, whatever its logits."""
    flags: tuple[str, ...]
    dead = [[NAN, INF, -INF], *Z[1:]]
    for end, dtype, fields in across(*BOTH):
        spec, flags = Softmax(**fields), ("ZeroWeightTimesInf",)
        yield draft(f"sample-weight-nan-{end}", spec, dead, T, dtype, flags=flags, sample_weight=[0, 1, 2, 1])
        yield draft(f"sample-weight-nan-soft-{end}", spec, dead, Y, dtype, flags=flags, sample_weight=[0, 1, 2, 1])
        spec = Softmax(class_weight=(0, 2, 5), **fields)
        yield draft(f"class-weight-nan-{end}", spec, dead, T, dtype, flags=flags)
        spec = Softmax(class_weight=(0, 2, 5), label_smoothing=0.1, weighting="label", **fields)
        yield draft(f"class-weight-nan-smoothed-{end}", spec, dead, T, dtype, flags=flags)
        infinite = [[-INF, 0, 1], *Z[1:]]
        spec = Softmax(class_weight=(0, 2, 5), reduction="none", **fields)
        yield draft(f"class-weight-infinite-loss-{end}", spec, infinite, T, dtype, flags=flags, upstream=UPSTREAM)
        spec = Softmax(**fields)
        z = [[0, -INF, 1]]
        yield draft(f"one-hot-{end}", spec, z, [[1.0, 0, 0]], dtype, flags=_NO_TERM)
        yield draft(f"index-{end}", spec, z, [0], dtype, flags=_NO_TERM)
        yield draft(f"soft-{end}", spec, z, [[0.25, 0, 0.75]], dtype, flags=_NO_TERM)
        spec = Softmax(class_weight=(1, 0, 3), **fields)
        yield draft(f"zero-weight-of-a-term-{end}", spec, z, [[0.5, 0.25, 0.25]], dtype, flags=_NO_TERM)
        spec = Softmax(class_weight=(1, 0, 3), label_smoothing=0.1, **fields)
        yield draft(f"zero-weight-smoothed-{end}", spec, z, [0], dtype, flags=_NO_TERM)
        spec = Softmax(inputs="log_probs", **fields)
        yield draft(f"log_probs-{end}", spec, [[-0.5, -INF, -1]], [[0.5, 0, 0.5]], dtype, flags=_NO_TERM)
        yield draft(f"all-zero-targets-nan-{end}", spec, dead, [[0.0, 0, 0], *Y[1:]], dtype, flags=("AllZeroTargets",))
        spec = Sigmoid(reduction="none", **fields)
        z_binary, t_binary = [INF, -INF, 1e4, -1e4], [1.0, 0, 1, 0]
        yield draft(f"binary-infinite-{end}", spec, z_binary, t_binary, dtype, flags=_NO_TERM, upstream=UPSTREAM)
        spec = Sigmoid(reduction="mean_over_positions", **fields)
        zero = [0, 1, 2, 1]
        yield draft(f"binary-nan-{end}", spec, [NAN, 1, 2, 3], [1.0, 0, 0, 1], dtype, flags=flags, sample_weight=zero)


def infinite() -> Iterator[Draft]:
    """Cover infinite and NaN logits that count: an infinity or NaN, as softmax gives, and never a plain number."""
    flags: tuple[str, ...]
    rows = {
        "plus-infinity-target": ([INF, 0, 1], 0),
        "plus-infinity-elsewhere": ([0, INF, 1], 0),
        "two-infinities": ([INF, INF, 1], 0),
        "minus-infinity-target": ([-INF, 0, 1], 0),
        "all-minus-infinity": ([-INF, -INF, -INF], 0),
        "nan": ([0, NAN, 1], 0),
    }
    flags = ("InfiniteLogit",)
    for end, dtype, fields in across(("float32", "native"), ("float32", "exact"), ("bfloat16", "native")):
        for name, (row, y) in rows.items():
            spec = Softmax(reduction="none", **fields)
            up = [2, 0.5]
            yield draft(f"{name}-index-{end}", spec, [row, Z[0]], [y, 1], dtype, flags=flags, upstream=up)
            yield draft(f"{name}-soft-{end}", spec, [row, Z[0]], [Y[0], Y[1]], dtype, flags=flags, upstream=up)
        spec = Softmax(label_smoothing=0.1, reduction="none", **fields)
        yield draft(f"minus-infinity-smoothed-{end}", spec, [[0, -INF, 1]], [0], dtype, flags=flags)
        yield draft(f"mean-{end}", Softmax(**fields), [[-INF, 0, 1], Z[0]], [0, 1], dtype, flags=flags)
        spec = Sigmoid(reduction="none", **fields)
        z, t = [INF, -INF, NAN, INF, 0.5], [0.0, 1, 1, 0.5, 0.5]
        yield draft(f"binary-{end}", spec, z, t, dtype, flags=flags, upstream=[1, 2, 1, 0.5, 1])


# A gap at which the loss is still a normal number of the type.
CONFIDENT = {"float16": 8.0, "bfloat16": 60.0, "float32": 60.0, "float64": 250.0}


def numbers() -> Iterator[Draft]:
    """Cover confident, wide, wrong and shifted logits in every type, both precisions."""
    flags: tuple[str, ...]
    offset = 2.0**13
    for end, dtype, fields in across(*ALL):
        gap = CONFIDENT[dtype]
        normal, wide = uniform("normal", 3, 5), uniform("wide", 3, 5, low=-20, high=20)
        kinds: dict[str, Any] = {
            "normal": (normal, [0, 3, 4], ()),
            "wide": (wide, [2, 0, 4], ()),
            "confident-9": ([[9.25, 0, -1], [0.25, 10.5, -2]], [0, 1], ("ConfidentTarget",)),
            "confident-17": ([[17.5, 0, -1], [0.25, 18, -2]], [0, 1], ("ConfidentTarget",)),
            "confident": ([[gap, 0, 1 / 8], [1, -1, gap]], [0, 2], ("ConfidentTarget",)),
            "wrong": ([[0.5, 20, 3], [-20, 1, 11]], [0, 0], ()),
            "offset": (np.round(normal * 2) * 8 + offset, [0, 3, 4], ("CommonOffset",)),
            "negative-offset": (np.round(normal * 2) * 8 - offset, [0, 3, 4], ("CommonOffset",)),
        }
        for name, (z, t, flags) in kinds.items():
            z = np.asarray(z, np.float64)
            one_hot = np.eye(z.shape[1])[t]
            up = uniform(f"upstream-{name}", len(z))
            spec = Softmax(reduction="none", **fields)
            yield draft(f"{name}-index-{end}", spec, z, t, dtype, flags=flags, upstream=up)
            if name.startswith("confident"):
                yield draft(f"{name}-one-hot-{end}", spec, z, one_hot, dtype, flags=flags, upstream=up)
            smooth = Softmax(label_smoothing=0.1, **fields)
            yield draft(f"{name}-smoothed-{end}", smooth, z, 0.75 * one_hot + 0.0625, dtype, flags=flags, upstream=3)
        z = [gap, -gap, -gap, gap, 0, 0.5, 17.5, -20]
        t = [1.0, 0, 1, 0, 1, 0, 1, 0]
        spec, flags = Sigmoid(reduction="none", **fields), ("ConfidentTarget",)
        yield draft(f"binary-{end}", spec, z, t, dtype, flags=flags, upstream=uniform("upstream-binary", 8))
        soft = [0.25, 0.75, 1, 0, 0.5, 0.125, 1, 0]
        yield draft(f"binary-soft-{end}", spec, z, soft, dtype, upstream=uniform("upstream-binary", 8))
        tie = Softmax(reduction="none", **fields)
        yield draft(f"equal-logits-{end}", tie, [[1.5, 1.5, 1.5], [2, 2, -9]], [1, 0], dtype, upstream=[1, -2])
    for dtype in DTYPES:
        smallest = FORMATS[dtype].smallest_normal
        gap = -np.log(smallest) + 1
        optional: dict[str, Any] = {"flags": ("Subnormal",), "tier": "optional"}
        spec = Softmax(reduction="none")
        if dtype != "float64":
            yield draft(f"subnormal-result-{dtype}-native", spec, [[gap, 0, 1]], [0], dtype, **optional)
            exact = Softmax(reduction="none", precision="exact")
            yield draft(f"subnormal-result-{dtype}-exact", exact, [[gap, 0, 1]], [0], dtype, **optional)
        yield draft(f"subnormal-input-{dtype}", spec, [[smallest / 4, 0, 1]], [0], dtype, **optional)
    # A half type's ties lie between two of its numbers; float32 cannot tell them from numbers 2**-40 beside them.
    for dtype, bits in (("float16", 11), ("bfloat16", 8)):
        weights = [1 + 2.0**-bits + 2.0**-40, 1 + 3 * 2.0**-bits - 2.0**-40]
        exact = Softmax(inputs="log_probs", reduction="none", precision="exact", class_weight=weights)
        flags = ("HalfDoubleRounding",)
        yield draft(f"double-rounding-{dtype}", exact, [[-1.0, -1], [-1, -1]], [0, 1], dtype, flags=flags)
        weights = [1 + 3 * 2.0**-bits - 2.0**-22 + 2.0**-40, 1 + 2.0**-bits + 2.0**-22 - 2.0**-40]
        exact = Softmax(inputs="log_probs", reduction="none", precision="exact", class_weight=weights)
        note = "two of float32's numbers beside the tie"
        z = [[-1.0, -1], [-1, -1]]
        yield draft(f"double-rounding-beside-a-tie-{dtype}", exact, z, [0, 1], dtype, flags=flags, note=note)
    spec = Softmax(class_weight=W, reduction="none")
    note = "as TensorFlow's bfloat16 kernels, which compute in bfloat16, do not"
    yield draft("bfloat16-inside", spec, Z, HOT, "bfloat16", upstream=S, note=note)
