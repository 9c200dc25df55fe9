"""NumPy: refusals, types, precision, and what a caller's arrays may look like."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, TargetIndexError
from classweight.call import are_weights
from classweight.reference import reference

from ..calls import ROWS_WITHOUT_A_SOFTMAX
from ..refusals import Refusal, Y, Z, assert_refused, each_refusal

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal) -> None:
    assert_refused(refusal, cwn.loss, lambda x: x)
    assert_refused(refusal, cwn.loss_and_grad, lambda x: x)


def test_an_out_of_range_target_is_an_index_error_too() -> None:
    with pytest.raises(IndexError):
        cwn.loss(SoftmaxCrossEntropy(), Z, Y + 1)
    assert issubclass(TargetIndexError, ValueError)


@pytest.mark.parametrize("targets", [Y + 1, Y - 1, np.eye(3)[Y] * np.array([[1], [-1], [1], [1]])])
def test_a_bad_target_that_is_not_looked_for_makes_its_row_nan(targets: Any) -> None:
    spec = SoftmaxCrossEntropy(reduction="none")
    rows, gradient = cwn.loss_and_grad(spec, Z, targets, validate=False)
    bad = (targets > 2) | (targets < 0) if targets.ndim == 1 else (targets < 0).any(1)
    assert bad.any()
    np.testing.assert_array_equal(np.isnan(rows), bad)
    np.testing.assert_array_equal(np.isnan(gradient), np.broadcast_to(bad[:, None], Z.shape))


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", np.longdouble])
def test_weights_are_told_from_what_is_none(dtype: Any) -> None:
    kind = np.dtype(dtype)
    least, most = (ml_dtypes.finfo(kind) if kind.kind == "V" else np.finfo(kind)).tiny / 2, np.inf
    for sign in (1, -1):
        for value in (least, 1, most, np.nan):
            values = np.copysign(np.array([[1, value], [0, 1]], dtype), np.array(sign, dtype))[::2]
            assert are_weights(values) == (sign == 1 and value < np.inf)
    assert are_weights(np.empty((0, 2), dtype))


@pytest.mark.parametrize("large", [40.0, -1000.0, np.inf, np.nan])
def test_a_binary_loss_has_the_same_bits_beside_a_large_logit(large: float) -> None:
    rng = np.random.default_rng(2)
    z, t = 9 * rng.normal(size=(200, 3)).astype(np.float32), rng.random((200, 3)).round(1)
    spec = SigmoidCrossEntropy(class_weight=(0.3, 2), reduction="none")
    alone, beside = (cwn.loss_and_grad(spec, x, t) for x in (z, np.where(np.arange(200)[:, None] == 7, large, z)))
    for found, expected in zip(beside, alone, strict=True):
        np.testing.assert_array_equal(np.delete(found, 7, 0), np.delete(expected, 7, 0))
        assert not np.array_equal(found[7], expected[7])


def test_what_float64_does_not_hold_is_no_weight() -> None:
    with pytest.raises(ValueError, match="`targets` must be finite and >= 0"):
        cwn.loss(SoftmaxCrossEntropy(), np.zeros((2, 3)), np.full((2, 3), np.longdouble("1e400")))
    with pytest.raises(ValueError, match="`class_weight` must be finite"):
        cwn.loss(SoftmaxCrossEntropy(), Z, Y, class_weight=np.full(3, -np.longdouble("1e400")))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("reduction", ["none", "mean_over_weights"])
def test_results_have_the_logits_dtype(dtype: Any, precision: Any, reduction: Any) -> None:
    spec = SoftmaxCrossEntropy(precision=precision, reduction=reduction, class_weight=[1, 2, 3])
    value, gradient = cwn.loss_and_grad(spec, Z.astype(dtype), Y)
    assert value.dtype == gradient.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_exact_gradients_are_the_rounded_float64_ones(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    z, y = (6 * rng.normal(size=(500, 40))).astype(dtype), rng.integers(0, 40, 500)
    spec = SoftmaxCrossEntropy(precision="exact", class_weight=rng.random(40))
    _, gradient = cwn.loss_and_grad(spec, z, y)
    _, wide = reference(spec, z.astype(np.float64), y)
    np.testing.assert_array_equal(gradient, wide.astype(dtype) if dtype != ml_dtypes.bfloat16 else to_bfloat16(wide))


def to_bfloat16(x: Any) -> Any:
    """Return float64 rounded once to bfloat16, by the integer arithmetic of its own bits."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 2**8), exponent - 8).astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("gap", [17, 30, 60, 80])
@pytest.mark.parametrize("precision", ["native", "exact"])
def test_a_confident_prediction_keeps_its_loss_and_gradient(gap: float, precision: Any) -> None:
    z = np.array([[gap, 0, 0]], np.float32)
    for targets in (np.array([0]), np.array([[1.0, 0, 0]])):
        value, gradient = cwn.loss_and_grad(SoftmaxCrossEntropy(precision=precision), z, targets)
        small = np.exp(-np.float64(gap))
        np.testing.assert_allclose(value, 2 * small, rtol=1e-6)
        np.testing.assert_allclose(gradient, [[-2 * small, small, small]], rtol=1e-6)
    z, t = np.array([gap], np.float32), np.array([1.0])
    value, gradient = cwn.loss_and_grad(SigmoidCrossEntropy(precision=precision), z, t)
    np.testing.assert_allclose([value, -gradient[0]], [small, small], rtol=1e-6)


def test_infinite_terms_of_coefficient_zero_add_nothing() -> None:
    z = np.array([[0, -np.inf, 1]])
    expected = np.log1p(np.e)
    for targets in (np.array([0]), np.array([[1.0, 0, 0]])):
        value, gradient = cwn.loss_and_grad(SoftmaxCrossEntropy(), z, targets)
        np.testing.assert_allclose(value, expected, rtol=1e-15)
        assert gradient[0, 1] == 0
    weighted = SoftmaxCrossEntropy(class_weight=[1, 0, 1], label_smoothing=0.3, reduction="sum")
    assert np.isfinite(cwn.loss(weighted, z, np.array([0])))
    assert cwn.loss(SoftmaxCrossEntropy(), z, np.array([1])) == np.inf


@pytest.mark.parametrize("row", ROWS_WITHOUT_A_SOFTMAX)
@pytest.mark.parametrize("targets", [np.array([0]), np.array([[1.0, 0, 0]]), np.array([[0.5, 0.5, 0]])])
def test_a_row_without_a_softmax_is_nan_and_so_is_its_gradient(row: Any, targets: Any) -> None:
    value, gradient = cwn.loss_and_grad(SoftmaxCrossEntropy(), np.array([row]), targets)
    assert np.isnan(value)
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("targets", [np.array([0, 1, 2, 1]), np.eye(3)[Y]])
def test_an_infinite_upstream_gradient_does_not_reach_an_ignored_row(targets: Any) -> None:
    mask = np.array([True, True, False, True])
    _, gradient = cwn.loss_and_grad(
        SoftmaxCrossEntropy(reduction="none"), Z, targets, mask=mask, upstream=[1, 1, np.inf, 1]
    )
    np.testing.assert_array_equal(gradient[2], 0)
    assert np.isfinite(gradient).all()


def test_views_read_only_and_byte_swapped_arrays_and_lists_are_taken() -> None:
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 3])
    expected = cwn.loss_and_grad(spec, Z, Y)
    read_only = Z.copy()
    read_only.flags.writeable = False
    variants = [
        (Z.tolist(), Y.tolist()),
        (read_only, Y.astype(np.uint8)),
        (np.asfortranarray(Z), Y.astype(np.int16)),
        (np.repeat(Z, 2, axis=0)[::2], np.repeat(Y, 2)[::2]),
        (Z[::-1][::-1], Y.astype(np.uint64)),
    ]
    for z, y in variants:
        value, gradient = cwn.loss_and_grad(spec, z, y)
        np.testing.assert_array_equal(value, expected[0])
        np.testing.assert_array_equal(gradient, expected[1])


def test_inputs_are_left_as_they_were() -> None:
    z, y, s, w = Z.copy(), Y.copy(), np.ones(4), np.ones(3)
    cwn.loss_and_grad(SoftmaxCrossEntropy(label_smoothing=0.1), z, y, s, class_weight=w)
    for now, before in ((z, Z), (y, Y), (s, np.ones(4)), (w, np.ones(3))):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("upstream", [np.ones(3), np.ones((4, 3)), 2.0])
def test_an_upstream_gradient_has_the_shape_of_the_loss(upstream: Any) -> None:
    with pytest.raises(ValueError, match=r"`upstream` must be real numbers of the loss's shape \(4,\)"):
        cwn.loss_and_grad(SoftmaxCrossEntropy(reduction="none"), Z, Y, upstream=upstream)


LARGE = np.random.default_rng(0).normal(size=(4096, 1000)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 1000, 4096)
SHARES = np.eye(1000, dtype=np.float32)[LABELS]
CLASS_WEIGHT = tuple(np.random.default_rng(2).random(1000))
FEW = np.random.default_rng(1).integers(0, 10, 409600)


@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize(
    ("spec", "shape", "targets"),
    [
        pytest.param(SoftmaxCrossEntropy(), (4096, 1000), LABELS, id="index"),
        pytest.param(SoftmaxCrossEntropy(class_weight=CLASS_WEIGHT), (4096, 1000), LABELS, id="index-weighted"),
        pytest.param(SoftmaxCrossEntropy(class_weight=CLASS_WEIGHT[:10]), (409600, 10), FEW, id="few-classes"),
        pytest.param(SoftmaxCrossEntropy(label_smoothing=0.1), (1, 10, 640, 640), FEW, id="one-image-smoothed"),
        pytest.param(SoftmaxCrossEntropy(), (4096, 1000), SHARES, id="distribution"),
        pytest.param(SoftmaxCrossEntropy(class_weight=CLASS_WEIGHT), (4096, 1000), SHARES, id="distribution-weighted"),
        pytest.param(SigmoidCrossEntropy(class_weight=(1, CLASS_WEIGHT)), (4096, 1000), SHARES, id="binary-weighted"),
    ],
)
def test_beside_the_gradient_nothing_of_the_logits_size_is_made(
    spec: Any, shape: Any, targets: Any, precision: Any
) -> None:
    spec = dataclasses.replace(spec, precision=precision)
    z, targets = (
        LARGE.reshape(shape),
        targets.reshape(shape[:1] + shape[2:] if targets is FEW else shape[: targets.ndim]),
    )
    peaks = []
    for function in (cwn.loss, cwn.loss_parts, cwn.loss_and_grad):
        function(spec, z[:1], targets[:1])  # a first call compiles, which takes memory of its own
        tracemalloc.start()
        function(spec, z, targets)
        peaks.append(tracemalloc.get_traced_memory()[1] / z.nbytes)
        tracemalloc.stop()
    # A block is a sixteenth of these logits, and a binary loss makes the most of one: thirteen arrays.
    assert max(peaks[:2]) < 0.9
    assert peaks[2] < 1.95


@pytest.mark.parametrize("classes", [2, 10, 32, 33, 1000])
@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("kind", ["index", "distribution"])
def test_the_bits_of_a_row_do_not_depend_on_other_rows(classes: int, precision: Any, kind: str) -> None:
    rng = np.random.default_rng(classes)
    z = (rng.normal(size=(30, classes)) * rng.choice([1, 30, 3000], size=(30, 1))).astype(np.float32)
    t = rng.integers(0, classes, 30) if kind == "index" else rng.random((30, classes))
    spec = SoftmaxCrossEntropy(class_weight=rng.random(classes), precision=precision)
    _, expected = cwn.loss_and_grad(spec, z, t, denominator=7.0)
    for size in (1, 2, 7):
        parts = [
            cwn.loss_and_grad(spec, z[i : i + size], t[i : i + size], denominator=7.0)[1] for i in range(0, 30, size)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("small", [1e-50, 1e-300, 1e300])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("targets", [Y, np.eye(3)[Y]])
def test_weights_that_float32_does_not_hold_count_as_their_ratios(small: float, smoothing: float, targets: Any) -> None:
    z, ratios = Z.astype(np.float32), np.array([1, 2, 5])
    expected = cwn.loss_and_grad(SoftmaxCrossEntropy(class_weight=ratios, label_smoothing=smoothing), z, targets)
    spec = SoftmaxCrossEntropy(class_weight=small * ratios, label_smoothing=smoothing)
    for got, wanted in zip(cwn.loss_and_grad(spec, z, targets), expected, strict=True):
        # Where a prediction fits its smoothed target the terms of a gradient cancel, which are up to 0.1.
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=0.1 * 2.0**-24 if smoothing else 0)


def test_a_denormal_sum_of_weights_is_divided_by() -> None:
    expected = cwn.loss_and_grad(SoftmaxCrossEntropy(class_weight=[1, 2, 5]), Z, Y)
    got = cwn.loss_and_grad(SoftmaxCrossEntropy(class_weight=[5e-324, 1e-323, 2.5e-323]), Z, Y)
    for value, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [6_200, 100_000])
def test_a_loss_is_finite_where_the_quotient_of_its_exponentials_is_large(classes: int, dtype: str) -> None:
    z = np.full((2, classes), 40, dtype)
    z[:, 0] = -40
    loss, gradient = cwn.loss_and_grad(SoftmaxCrossEntropy(reduction="none"), z, [0, 1])
    assert loss == pytest.approx(
        [80 + np.log(classes - 1), np.log(classes - 1)], rel=4e-7 if dtype == "float32" else 1e-15
    )
    assert gradient[0, 0] == -1
    assert gradient[0, 1:] == pytest.approx(1 / (classes - 1), rel=1e-6)
