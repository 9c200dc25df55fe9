"""What must hold on any backend, whatever the numbers: laws that need no expected value, and one that has the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.conformance.backends import make_backend

from ..batches import assert_same_bits
from ..calls import CLOSE, random_call
from ..truth import assert_true

Law = Callable[["Library", int], None]
LAWS: list[Law] = []
REDUCED = ("sum", "mean_over_weights", "mean_over_valid", "mean_over_positions", "mean_over_nonzero")


class Library:
    """A backend of the suite, called with NumPy's arrays."""

    def __init__(self, backend: str) -> None:
        self.glue = make_backend(backend).glue

    def __call__(
        self, spec: Any, z: Any, t: Any, *, upstream: Any = None, layout: str | None = None, **arguments: Any
    ) -> Any:
        """Return loss and gradient."""
        logits, targets, up = (self.native(x, layout) for x in (z, t, upstream))
        given = {name: self.native(value) if np.ndim(value) else value for name, value in arguments.items()}
        return [self.numbers(x) for x in self.glue.run(spec, logits, targets, given, up)]

    def native(self, x: Any, layout: str | None = None) -> Any:
        if x is None:
            return None
        x = np.asarray(x)
        made = self.glue.decode(x.tobytes(), x.dtype.name, x.shape)
        return self.glue.lay(made, layout) if layout else made

    def numbers(self, x: Any) -> Any:
        data, dtype, shape = self.glue.encode(x)
        return np.frombuffer(data, dtype).reshape(shape)


def holds(law: Law, library: Library, examples: int) -> None:
    """Assert that a law holds for so many seeds."""

    @settings(max_examples=examples)
    @given(st.integers(0, 10**6))
    def one(seed: int) -> None:
        law(library, seed)

    one()


def law(function: Law) -> Law:
    LAWS.append(function)
    return function


def batch(seed: int, rows: int = 7, classes: int = 4) -> tuple[Any, Any, Any, Any, Any]:
    """Return logits, targets, class weights, sample weights and a generator; shapes are few, for they are compiled."""
    rng = np.random.default_rng(seed)
    z, y = 4 * rng.normal(size=(rows, classes)), rng.integers(0, classes, rows)
    return z, y, rng.random(classes) + 0.1, rng.random(rows) + 0.1, rng


def assert_close(found: Any, expected: Any, atol: float = 1e-15) -> None:
    np.testing.assert_allclose(found[0], expected[0], **CLOSE)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-10, atol=atol)


@law
def a_common_offset_changes_nothing(library: Library, seed: int) -> None:
    z, y, _, s, rng = batch(seed)
    z = np.round(8 * z) / 8
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 0.5, 3], label_smoothing=0.1)
    assert_close(
        library(spec, z + float(rng.integers(-(10**6), 10**6)), y, sample_weight=s),
        library(spec, z, y, sample_weight=s),
    )


@law
def the_order_of_rows_and_of_classes_does_not_matter(library: Library, seed: int) -> None:
    z, y, w, s, rng = batch(seed)
    rows, classes = rng.permutation(7), rng.permutation(4)
    spec = SoftmaxCrossEntropy(reduction=REDUCED[seed % len(REDUCED)])
    value, gradient = library(spec, z, y, sample_weight=s, class_weight=w)
    again = library(
        spec, z[rows][:, classes], np.argsort(classes)[y[rows]], sample_weight=s[rows], class_weight=w[classes]
    )
    assert_close(again, (value, gradient[rows][:, classes]))


@law
def a_duplicate_row_is_a_row_of_twice_the_weight(library: Library, seed: int) -> None:
    z, y, w, s, _ = batch(seed)
    spec = SoftmaxCrossEntropy(reduction=("sum", "mean_over_weights")[seed % 2])
    doubled = library(spec, np.vstack([z, z[:1]]), np.append(y, y[0]), sample_weight=np.append(s, s[0]), class_weight=w)
    gradient = doubled[1][:-1] + np.where(np.arange(7)[:, None] == 0, doubled[1][-1:], 0)
    s[0] *= 2
    assert_close((doubled[0], gradient), library(spec, z, y, sample_weight=s, class_weight=w))


@law
def a_weight_of_0_is_removal(library: Library, seed: int) -> None:
    z, y, w, s, _ = batch(seed)
    kept = np.arange(7) != 2
    z[2], s[2] = [np.nan, np.inf, -np.inf, 0], 0
    spec = SoftmaxCrossEntropy(reduction=("sum", "mean_over_weights", "mean_over_nonzero")[seed % 3])
    value, gradient = library(spec, z, y, sample_weight=s, class_weight=w)
    np.testing.assert_array_equal(gradient[2], 0)
    removed = library(spec, z[kept], y[kept], sample_weight=s[kept], class_weight=w)
    assert_close((value, gradient[kept]), removed)


@law
def a_one_hot_is_an_index(library: Library, seed: int) -> None:
    z, y, w, s, _ = batch(seed)
    weighting: Any = ("term", "label", "expected")[seed % 3]
    reduction: Any = REDUCED[seed % len(REDUCED)]
    spec = SoftmaxCrossEntropy(weighting=weighting, reduction=reduction, label_smoothing=0.2 * (seed % 2))
    hot = library(spec, z, np.eye(4)[y], sample_weight=s, class_weight=w)
    assert_close(hot, library(spec, z, y, sample_weight=s, class_weight=w))


@law
def a_scale_of_all_weights_cancels_in_a_weighted_mean(library: Library, seed: int) -> None:
    z, y, w, s, rng = batch(seed)
    scale = float(rng.uniform(0.5, 8) * rng.choice([-1, 1]))
    spec = SoftmaxCrossEntropy()
    expected = library(spec, z, y, sample_weight=s, class_weight=w)
    assert_close(library(spec, z, y, sample_weight=scale * s, class_weight=w), expected)
    assert_close(library(spec, z, y, sample_weight=s, class_weight=scale * w), expected)


@law
def a_row_has_its_bits_whatever_is_around_it_and_however_it_lies(library: Library, seed: int) -> None:
    z, y, w, s, rng = batch(seed, rows=6, classes=5)
    z, s, up = z.astype(np.float32), s.astype(np.float32), rng.normal(size=6).astype(np.float32)
    precision: Any = ("native", "exact")[seed % 2]
    t: Any = (y, np.eye(5, dtype=np.float32)[y], rng.random((6, 5)).astype(np.float32))[seed % 3]
    spec: Any = SoftmaxCrossEntropy(reduction="none", precision=precision, label_smoothing=0.1 * (seed % 4 == 0))
    arguments = {"class_weight": w}
    if seed % 5 == 0:
        t, arguments = np.eye(5, dtype=np.float32)[y], {}
        spec = SigmoidCrossEntropy(reduction="none", precision=precision, average_outputs=True)
    whole = library(spec, z, t, upstream=up, sample_weight=s, **arguments)
    for rows in (slice(0, 1), slice(0, 3), slice(3, 6)):
        part = library(spec, z[rows], t[rows], upstream=up[rows], sample_weight=s[rows], **arguments)
        assert_same_bits(part, [x[rows] for x in whole], f"{spec} {rows}")
    for layout in ("columns", "steps"):
        laid = library(spec, z, t, upstream=up, layout=layout, sample_weight=s, **arguments)
        assert_same_bits(laid, whole, f"{spec} {layout}")


BITS = LAWS[-1]


@law
def loss_and_gradient_are_the_function_and_its_derivative(library: Library, seed: int) -> None:
    call = random_call(seed, small=True)
    call.spec = replace(call.spec, precision="native")
    found = library(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    assert_true(call, *found)
