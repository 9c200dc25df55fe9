"""Figures that others print, as cases with their source: what a framework's own documents, tests or runs show.

A figure is given by the spec of that framework's habit; where it is not what the definition gives, the case says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from classweight import conventions

from .cases import TypedArray
from .drafts import INF, Draft, S, Sigmoid, Softmax, T, W, Y, Z, draft, floats

TWO_Z, TWO_T = [[1, 2], [1, 3], [1, 3]], [0, 1, 1]
RAN = "run on torch 2.13.0, tensorflow 2.21.0, keras 3.15.1, tf_keras 2.21.0, chainer 7.8.1, paddlepaddle 3.3.1"


def published() -> Iterator[Draft]:
    """Cover figures in print."""
    yield from _documented()
    yield from _targets_and_weights()
    yield from _denominators()
    yield from _edges()


def _documented() -> Iterator[Draft]:
    torch, chainer = conventions.torch, conventions.chainer
    source = "torch.nn.CrossEntropyLoss and NLLLoss, logits [[1,2],[1,3],[1,3]] and targets [0,1,1]"
    for weight, figures in {
        None: (["1.3133", "0.1269", "0.1269"], "1.5671", "0.5224"),
        (1, 2): (["1.3133", "0.2539", "0.2539"], "1.8210", "0.3642"),
    }.items():
        for kind, figure in zip(("none", "sum", "mean"), figures, strict=True):
            spec = torch.cross_entropy(weight, reduction=kind)
            name = f"torch-cross_entropy-{kind}{'-weighted' if weight else ''}"
            yield draft(name, spec, TWO_Z, TWO_T, source=source, published={"loss": figure})
    for kind, figure in {"none": ["-1", "-3", "-3"], "sum": "-7", "mean": "-2.3333"}.items():
        spec = torch.nll_loss(reduction=kind)
        yield draft(f"torch-nll_loss-{kind}", spec, TWO_Z, TWO_T, source=source, published={"loss": figure})
    source = "chainer.functions.softmax_cross_entropy, x = [[1, 0]], t = [1]"
    for weight, loss, gradient in ((None, "1.3132616", "0.7310586"), ((1, 2), "2.626523", "1.462117")):
        printed = {"loss": loss, "gradient": [gradient, "-" + gradient]}
        spec = chainer.softmax_cross_entropy(class_weight=weight)
        name = f"chainer{'-weighted' if weight else ''}"
        yield draft(name, spec, [[1, 0]], [1], flags=("BatchOfOne",), source=source, published=printed)
    yield draft(
        "entropy-of-five",
        Softmax(inputs="probs"),
        [[0.4, 0.3, 0.05, 0.05, 0.2]],
        [[1.0, 0, 0, 0, 0]],
        source="p = [1,0,0,0,0], q = [.4,.3,.05,.05,.2], as textbooks work it out",
        published={"loss": "0.916"},
    )
    weights = [0.01, 0.03, 0.05, 0.02, 0.01, 0.02]
    ratio = 0.11 / 0.03
    yield draft(
        "keras-sample-and-class-weights",
        conventions.keras.binary_crossentropy(from_logits=True, class_weight={0: 1, 1: ratio}, reduction="sum"),
        np.zeros((6, 1)),
        np.array([[0.0], [0], [0], [0], [1], [1]]),
        flags=("SampleTimesClassWeight",),
        sample_weight=TypedArray.of(weights, "float64"),
        source="keras-team/keras#497: y = [0,0,0,0,1,1] with both weights, by which each class sums to .11",
        published={"loss": str(round(0.22 * np.log(2), 10))},
    )


def _targets_and_weights() -> Iterator[Draft]:
    """Rows 1 to 6 of the table of surprises: one batch, and what a framework's habit makes of it."""
    flags: tuple[str, ...]
    hot = floats(np.eye(3)[T])
    over_weights, over_positions = {"reduction": "mean_over_weights"}, {"reduction": "mean_over_positions"}
    figures: list[tuple[str, dict[str, Any], Any, str]] = [
        ("1-over-weights", over_weights, T, "0.2039070"),
        ("1-over-positions", over_positions, T, "0.5097674"),
        ("2-one-hot-torch", over_positions, hot, "0.5097674"),
        ("2-one-hot-paddle", over_weights, hot, "0.2039070"),
        ("3-soft-inside", over_positions, Y, "2.7833272"),
        ("3-soft-outside", {**over_positions, "weighting": "expected"}, Y, "3.0658272"),
        ("3-soft-outside-paddle", {**over_weights, "weighting": "expected"}, Y, "1.2708092"),
        ("3-soft-label-keras", {**over_positions, "weighting": "label"}, Y, "2.6048059"),
        ("4-smoothed-torch", {**over_weights, "label_smoothing": 0.1}, T, "0.3745077"),
        ("4-smoothed-torch-one-hot", {**over_positions, "label_smoothing": 0.1}, hot, "0.9362692"),
        ("4-smoothed-keras", {**over_positions, "label_smoothing": 0.1, "weighting": "label"}, T, "0.9056008"),
        ("4-smoothed-tf1", {**over_weights, "label_smoothing": 0.1, "weighting": "label"}, T, "0.3622403"),
    ]
    for name, fields, targets, loss in figures:
        flags = ("OneHotIsIndex",) if targets is hot else ("SmoothingWithWeights",) if name[0] == "4" else ()
        spec = Softmax(class_weight=W, **fields)
        yield draft(name, spec, Z, targets, flags=flags, source=RAN, published={"loss": loss})
    soft = Softmax(**over_positions)
    yield draft("3-soft-unweighted-chainer", soft, Z, Y, source=RAN, published={"loss": "1.2655445"})
    ignored = [*T[:2], -1, 2]
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("5-ignored-over-valid", {"reduction": "mean_over_valid"}, "0.9200565"),
        ("5-ignored-over-positions", over_positions, "0.6900424"),
        ("6-ignored-weighted-over-weights", {"class_weight": W}, "1.4735707"),
        ("6-ignored-weighted-over-valid", {"class_weight": W, "reduction": "mean_over_valid"}, "3.9295219"),
        ("6-ignored-weighted-over-batch", {"class_weight": W, "reduction": "mean_over_batch"}, "2.9471415"),
    ]
    for name, fields, loss in rows:
        yield draft(name, Softmax(ignore_index=-1, **fields), Z, ignored, source=RAN, published={"loss": loss})


def _denominators() -> Iterator[Draft]:
    for value, figure in (("nan", "nan"), ("zero", "0")):
        spec = Softmax(ignore_index=-1, zero_denominator=value, reduction="mean_over_valid")
        yield draft(f"7-all-ignored-{value}", spec, Z, [-1] * 4, flags=("AllIgnored",), source=f"{RAN}: {figure}")
    for kind, loss in {"positions": "0.1799585", "nonzero": "0.2399447", "weights": "0.2056669"}.items():
        spec, figures = Softmax(reduction=f"mean_over_{kind}"), {"loss": loss}
        yield draft(f"8-sample-weight-over-{kind}", spec, Z, T, sample_weight=S, source=RAN, published=figures)
    flags = ("SampleTimesClassWeight",)
    spec, figures = Softmax(class_weight=W, reduction="mean_over_positions"), {"loss": "0.5276018"}
    yield draft("9-both-weights", spec, Z, T, flags=flags, sample_weight=S, source=RAN, published=figures)
    weighted = floats(np.array(Y) * W)
    flags, gradient = ("NonNormalisedTargets",), {"gradient": [".5569553", "-.3374199", "-.2195354"]}
    for name, spec, targets in [
        ("10-targets-times-weights", Softmax(reduction="sum"), weighted[:1]),
        ("10-weights-in-the-spec", Softmax(reduction="sum", class_weight=W), Y[:1]),
    ]:
        yield draft(name, spec, Z[:1], targets, "float64", flags=flags, source=RAN, published=gradient)
    note = "Keras 3 weights time steps with a vector of the samples' length; a prefix weights samples"
    steps = [Z[:3], Z[1:], [Z[2], Z[0], Z[3]]]
    flags, spec = ("PrefixSampleWeight",), Softmax(axis=-1, reduction="mean_over_positions")
    labels = [T[:3], T[1:], [2, 0, 1]]
    yield draft(
        "17-samples-not-steps", spec, steps, labels, flags=flags, sample_weight=[1, 2, 5], note=note, source=RAN
    )
    note = "Keras 3 divides by the sum before broadcasting, 4 here; a weighted mean divides by 12"
    spec, flags = Softmax(axis=-1), ("UnbroadcastSum",)
    pair, labels = [Z[:3], Z[1:]], [T[:3], T[1:]]
    yield draft("18-true-weighted-mean", spec, pair, labels, flags=flags, sample_weight=[1, 3], note=note, source=RAN)
    spec = Softmax()
    figures = {"loss": "0.2280445"}
    note = "Keras 3 gives the sum, 0.9121779, for a scalar weight of 2"
    yield draft("18-scalar", spec, Z, T, flags=flags, sample_weight=2, note=note, source=RAN, published=figures)
    spec = Softmax(class_weight={0: 7, 1: 3}, missing_class_weight=1, reduction="none")
    yield draft("19-missing-class", spec, np.zeros((4, 3)), T, flags=("MissingClass",), source=RAN)
    spec, integers = Softmax(class_weight=(0.5, 1.5, 2.9), reduction="mean_over_positions"), [1, 2, 3, 1]
    note, wide = "tf_keras truncates the weights to 0, 1, 2", TypedArray.of(integers, "int64")
    flags = ("SampleTimesClassWeight",)
    yield draft("20-integer-sample-weight", spec, Z, T, flags=flags, sample_weight=wide, note=note, source=RAN)
    note = "K is the number of classes, 3, and not the last dimension, 4, by which Keras 3 divides"
    spec, z = Softmax(label_smoothing=0.1, reduction="mean_over_positions"), np.array(Z).T[None]
    yield draft("24-smoothing-over-C", spec, z, [T], flags=("SmoothingAxis",), note=note, source=RAN)
    weights = {"class_weight": W, "ignore_index": -1}
    z, t = np.array([Z, Z[::-1]]).transpose(0, 2, 1).reshape(2, 3, 2, 2), [[[0, -1], [2, 1]], [[1, 2], [-1, 0]]]
    for kind in ("valid", "batch"):
        spec = Softmax(reduction=f"mean_over_{kind}", **weights)
        yield draft(f"25-map-over-{kind}", spec, z, t, flags=("SpatialMean",), source=RAN)


def _edges() -> Iterator[Draft]:
    flags: tuple[str, ...]
    none = Softmax(reduction="none")
    flags = ("AllZeroTargets", "NonNormalisedTargets")
    note = "TensorFlow's gradient is the probabilities, [.7856, .0391, .1753]"
    yield draft("11-zero-row", none, Z[:1], [[0.0, 0, 0]], flags=flags, note=note, source=RAN)
    flags = ("ZeroCoefficientTimesInf",)
    for name, targets in (("one-hot", [[1.0, 0, 0]]), ("index", [0])):
        figures = {"loss": ["1.3132616"]}
        yield draft(f"12-{name}", none, [[0, -INF, 1]], targets, flags=flags, source=RAN, published=figures)
    for dtype in ("float32", "float64"):
        figures = {"loss": ["20000"], "gradient": ["1", "0", "-1"]}
        spec = Softmax(reduction="none")
        yield draft(f"13-gap-20000-{dtype}", spec, [[1e4, 0, -1e4]], [2], dtype, source=RAN, published=figures)
    flags = ("WrappedIndex",)
    for number, label in (("14", -1), ("15", -100), ("16", 3)):
        error = ("IndexError", "targets", str(label), "2")
        yield draft(f"{number}-label-{label}", Softmax(), Z, [0, 1, label, 1], flags=flags, source=RAN, error=error)
    twenty = Softmax(reduction="mean_over_positions")
    note = "torch's float16 sum overflows on the CPU"
    flags = ("HalfAccumulation",)
    z = [[0, 3e4]] * 8
    yield draft("21-half-mean", twenty, z, [0] * 8, "float16", flags=flags, note=note, source=RAN)
    for precision in ("native", "exact"):
        spec = Softmax(reduction="none", precision=precision)
        note = "0.2413113 in bfloat16 is 0.2412109375; TensorFlow gives 0.2353516, optax 0.25"
        yield draft(f"22-bfloat16-{precision}", spec, Z[:1], [0], "bfloat16", note=note, source=RAN)
    flags = ("ProbabilityClip", "ConfidentTarget")
    figures = {"loss": ["60"]}
    note = "Keras gives 16.118 and no gradient from the probabilities"
    yield draft("23-gap-60", none, [[60, 0]], [1], flags=flags, note=note, source=RAN, published=figures)
    spec = conventions.keras.sparse_categorical_crossentropy(backend="torch", reduction="none")
    figures = {"loss": ["16.118095"]}
    yield draft("23-clipped", spec, [[1, 0]], [1], flags=flags[:1], source=RAN, published=figures)
    spec = Sigmoid(reduction="none", inputs="probs", clip=1e-7)
    yield draft("23-binary-clipped", spec, [0.0], [1.0], flags=flags[:1], source=RAN, published=figures)
