"""The CPU's kernels: a row's bits belong to the row, whatever lies around it, however it lies, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.compute import threads
from classweight.reference import reference

from ..batches import DTYPES, KINDS, ROWS, Batch, assert_same_bits, batch

each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))
each_precision = pytest.mark.parametrize("precision", ["native", "exact"])
each_number_of_classes = pytest.mark.parametrize("classes", list(ROWS))
# Weights that float32 does not carry, in either sign.
EXTREMES = [1e-300, 1e-40, 2.0**-70, 2.0**31, 1e30, 1e300]


def evaluate(b: Batch, **arguments: Any) -> tuple[Any, Any]:
    """Return loss and gradient; of a mean, the parts of which are compared, a shared denominator's."""
    if b.spec.reduction != "none":
        arguments["denominator"] = 7.0
    return cwn.loss_and_grad(b.spec, b.z, b.t, b.s, upstream=b.upstream, **arguments)


@each_kind
@each_dtype
@each_precision
@each_number_of_classes
def test_a_row_has_the_same_bits_in_every_batch(kind: str, dtype: str, precision: str, classes: int) -> None:
    b = batch(kind, dtype, classes, precision)
    losses, slopes = evaluate(b)
    shared = evaluate(b.reduced())[1]
    for i in (0, 1, 2, 3, len(b) // 2, len(b) - 1):
        alone = b[i : i + 1]
        assert_same_bits(evaluate(alone), (losses[i : i + 1], slopes[i : i + 1]), f"row {i} alone")
        assert_same_bits(evaluate(alone.reduced())[1:], [shared[i : i + 1]], f"row {i} alone, a mean")
    order = np.random.default_rng(0).permutation(len(b))
    assert_same_bits(evaluate(b[order]), (losses[order], slopes[order]), "permuted")
    for size in (2, 7, 129):
        parts = [b[i : i + size] for i in range(0, len(b), size)]
        found = [evaluate(part) for part in parts]
        assert_same_bits(map(np.concatenate, zip(*found, strict=True)), (losses, slopes), f"split by {size}")
        gradients = [evaluate(part.reduced())[1] for part in parts]
        assert_same_bits([np.concatenate(gradients)], [shared], f"a mean split by {size}")


def spread_out(x: Any) -> Any:
    """Return an array's numbers with others between them."""
    wide = np.full([2 * n for n in x.shape], 77, x.dtype)
    view = wide[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def packed(x: Any) -> Any:
    """Return a field of records, the numbers of which are not aligned."""
    records = np.zeros(x.shape, [("before", "u1"), ("x", x.dtype)])
    records["x"] = x
    return records["x"]


def swapped(x: Any) -> Any:
    """Return numbers in the other byte order; bfloat16 has one alone."""
    return x.astype(x.dtype.newbyteorder())


def read_only(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


def backwards(x: Any) -> Any:
    flip = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[flip])[flip]


LAYOUTS: list[Callable[[Any], Any]] = [np.asfortranarray, spread_out, packed, swapped, read_only, backwards]


@each_kind
@each_dtype
@each_precision
@pytest.mark.parametrize("classes", [10, 100])
def test_a_row_has_the_same_bits_however_it_lies(kind: str, dtype: str, precision: str, classes: int) -> None:
    b = batch(kind, dtype, classes, precision)
    for shaped in (b, b.reduced()):
        expected = evaluate(shaped)
        for layout in LAYOUTS:
            upstream = layout(shaped.upstream) if shaped.upstream.ndim else shaped.upstream
            moved = replace(shaped, z=layout(b.z), t=layout(b.t), s=layout(b.s), upstream=upstream)
            assert_same_bits(evaluate(moved), expected, layout.__name__)


@each_kind
@each_dtype
@each_precision
@pytest.mark.parametrize("classes", [10, 100])
def test_a_row_has_the_same_bits_on_any_axis(kind: str, dtype: str, precision: str, classes: int) -> None:
    b = batch(kind, dtype, classes, precision)
    losses, slopes = evaluate(b)
    positions = (2, 2, len(b) // 4)
    for axis in range(4) if not b.is_binary else (3,):

        def moved(x: Any, axis: int = axis) -> Any:
            x = x.reshape(*positions, *x.shape[1:])
            return np.ascontiguousarray(np.moveaxis(x, 3, axis)) if x.ndim == 4 else x

        spec = b.spec if b.is_binary else replace(b.spec, axis=axis)
        there = Batch(spec, *map(moved, (b.z, b.t, b.s, b.upstream)))
        for layout in (np.ascontiguousarray, np.asfortranarray, backwards):
            found = evaluate(replace(there, z=layout(there.z)))
            assert_same_bits(found, map(moved, (losses, slopes)), f"axis {axis}, {layout.__name__}")


def threaded(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let NumPy's losses have so many threads."""
    monkeypatch.setattr(threads, "of_numpy", lambda: threads.Team(count, threads.launch))


@each_kind
@each_precision
@pytest.mark.parametrize("shape", [(20_000, 10), (2000, 100), (70, 3000)])
def test_bits_and_means_do_not_depend_on_threads(
    kind: str, precision: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = batch(kind, "float32", shape[1], precision, rows=shape[0])
    threaded(monkeypatch, 1)
    expected, mean = evaluate(b), evaluate(b.reduced())
    parts = cwn.loss_parts(b.reduced().spec, b.z, b.t, b.s)
    alone = [evaluate(b[i : i + 1]) for i in range(0, len(b), len(b) // 10)]
    assert_same_bits(map(np.concatenate, zip(*alone, strict=True)), [x[:: len(b) // 10] for x in expected], "alone")
    for count in (2, 3, 8):
        threaded(monkeypatch, count)
        for _ in range(3):
            assert_same_bits(evaluate(b), expected, f"{count} threads")
            assert_same_bits(evaluate(b.reduced()), mean, f"{count} threads, a mean")
            assert_same_bits(cwn.loss_parts(b.reduced().spec, b.z, b.t, b.s), parts, f"{count} threads, parts")


@each_kind
@each_dtype
@pytest.mark.parametrize("classes", [3, 40])
def test_rows_do_not_feel_what_lies_beside_them(kind: str, dtype: str, classes: int) -> None:
    b = batch(kind, dtype, classes, rows=280)
    plain = evaluate(b), evaluate(b.reduced())
    z, s, rng = b.z.copy(), b.s.copy(), np.random.default_rng(1)
    hostile = rng.random(len(b)) < 0.5
    for i in np.flatnonzero(hostile):
        value = rng.choice([np.nan, np.inf, -np.inf, 6e4, -6e4])
        z[i, rng.random(classes) < rng.choice([0.1, 1])] = value
        s[i] = rng.choice([-1, 1]) * rng.choice([1, *EXTREMES])
    for shaped, expected in zip((b, b.reduced()), plain, strict=True):
        found = evaluate(replace(shaped, z=z, s=s))
        assert_same_bits([found[1][~hostile]], [expected[1][~hostile]], "gradient")
        if shaped is b:
            assert_same_bits([found[0][~hostile]], [expected[0][~hostile]], "loss")


@each_kind
@each_precision
@pytest.mark.parametrize("classes", [3, 40, 2000])
def test_weights_that_float32_does_not_carry_give_what_the_equations_do(
    kind: str, precision: str, classes: int
) -> None:
    """They scale the loss of a weight of 1; the gradient's upstream gradient undoes that."""
    b = batch(kind, "float32", classes, precision, rows=60)
    b = b[np.isfinite(b.z).all(1)]
    losses, slopes = reference(b.spec, b.z, b.t, upstream=b.upstream)
    sizes = magnitudes(b)
    for extreme in EXTREMES:
        for sign in (-1, 1):
            s = np.where(np.arange(len(b)) % 3 == 0, 1, sign * extreme)
            found = evaluate(replace(b, s=s, upstream=(b.upstream.T / s).T))
            with np.errstate(over="ignore"):
                assert_near(found[0], (losses.T * s).T, (sizes[0].T * abs(s)).T, abs(s) * 2.0**-1000)
                # A slope is multiplied last, by what can be 1e300.
                assert_near(found[1], slopes, sizes[1], 2.0**-1070 / abs(s))


def assert_near(found: Any, truth: Any, size: Any, least: Any) -> None:
    """Assert that rows are as near as float32's roundings, of terms of such a size, allow, and its least number."""
    bound = (32 * 2.0**-24 * size).T + (least + 2.0**-149)
    near = np.abs(found.astype(np.float64) - truth) <= bound.T
    assert (near | (np.isinf(found) & (found == truth.astype(np.float32)))).all()


def magnitudes(b: Batch) -> tuple[Any, Any]:
    """Return the sums of the absolute terms of losses and gradients of rows that weigh 1."""
    z, upstream = b.z.astype(np.float64), np.abs(b.upstream)
    if b.is_binary:
        t, (w_neg, w_pos) = 0.9 * b.t + 0.05, b.spec.class_weight
        p, m = np.asarray(w_pos) * t, w_neg * (1 - t)
        losses, slopes = p * np.logaddexp(0, -z) + m * np.logaddexp(0, z), p + m
        if b.spec.average_outputs:
            losses, slopes, upstream = losses.mean(1), slopes / z.shape[1], upstream[:, None]
        return losses, slopes * upstream
    w, e = np.asarray(b.spec.class_weight), b.spec.label_smoothing
    a = w * ((1 - e) * (np.eye(len(w))[b.t] if b.is_hard else b.t) + e / len(w))
    top = z.max(1, keepdims=True)
    is_top = np.arange(len(w)) == z.argmax(1)[:, None]
    gaps = top - z + np.log1p(np.where(is_top, 0, np.exp(z - top)).sum(1, keepdims=True))
    return (a * gaps).sum(1), (a.sum(1, keepdims=True) * np.exp(-gaps) + a) * upstream[:, None]


@st.composite
def batches(draw: Any) -> Batch:
    """Return a few rows with weights and logits of any size."""
    kind, precision = draw(st.sampled_from(KINDS)), draw(st.sampled_from(["native", "exact"]))
    b = batch(kind, "float32", draw(st.sampled_from([1, 2, 5, 32, 33, 48])), precision, rows=draw(st.integers(2, 9)))
    weights = st.sampled_from([0.0, 1, 0.3, *EXTREMES]).flatmap(lambda w: st.sampled_from([w, -w]))
    s = np.array(draw(st.lists(weights, min_size=len(b), max_size=len(b))))
    logits = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 88.5, -104, 0.0, -0.0])
    z = b.z.copy()
    for place in draw(st.lists(st.integers(0, z.size - 1), max_size=4)):
        z.flat[place] = draw(logits)
    return replace(b, z=z, s=s)


@given(batches(), st.randoms(use_true_random=False))
def test_any_row_beside_any_other_has_the_bits_that_it_has_alone(b: Batch, random: Any) -> None:
    order = np.array(random.sample(range(len(b)), len(b)))
    for shaped in (b, b.reduced()):
        expected = evaluate(shaped)
        alone = [evaluate(b[i : i + 1] if shaped is b else b[i : i + 1].reduced()) for i in range(len(b))]
        assert_same_bits([np.concatenate([slopes for _, slopes in alone])], expected[1:], "alone")
        mixed = evaluate(b[order] if shaped is b else b[order].reduced())
        assert_same_bits(mixed[1:], [expected[1][order]], "permuted")
        if shaped is b:
            assert_same_bits([np.concatenate([loss for loss, _ in alone])], expected[:1], "alone")
            assert_same_bits(mixed[:1], [expected[0][order]], "permuted")


@each_precision
@pytest.mark.parametrize("given", ["class_weight", "sample_weight"])
@pytest.mark.parametrize("spec", [SoftmaxCrossEntropy(), SigmoidCrossEntropy()])
def test_an_empty_batch_has_an_empty_gradient(spec: Any, given: str, precision: Any) -> None:
    spec = replace(spec, precision=precision)
    z = np.empty((0, 3), np.float32)
    t = np.empty(0, np.int64) if isinstance(spec, SoftmaxCrossEntropy) else z
    pair = np.ones(3) if isinstance(spec, SoftmaxCrossEntropy) else (1, np.ones(3))
    loss, slopes = cwn.loss_and_grad(spec, z, t, **{given: pair if given == "class_weight" else np.ones(0)})
    assert loss == 0
    assert slopes.shape == (0, 3)


def test_a_denominator_that_is_given_to_a_large_binary_loss_is_that_number() -> None:
    """Such a call's own denominator is a sum over slices; this one is not."""
    z = np.random.default_rng(0).normal(size=(600, 500)).astype(np.float32)
    spec = SigmoidCrossEntropy(reduction="mean_over_weights")
    total = cwn.loss(replace(spec, reduction="sum"), z, z > 0)
    np.testing.assert_allclose(cwn.loss(spec, z, z > 0, denominator=100.0), total / 100, rtol=1e-6)
