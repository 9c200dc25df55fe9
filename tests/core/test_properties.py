"""What must hold for any batch, whatever the numbers: properties that need no expected value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

from ..calls import CLOSE, REDUCTIONS, random_call

REDUCED = [reduction for reduction in REDUCTIONS if reduction != "none"]
seeds = st.integers(0, 10**6)


def batch(seed: int, rows: int = 7, classes: int = 4) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    return (
        4 * rng.normal(size=(rows, classes)),
        rng.integers(0, classes, size=rows),
        rng.random(classes) + 0.1,
        rng.random(rows) + 0.1,
    )


@given(seeds, st.sampled_from(REDUCTIONS), st.sampled_from(["term", "label", "expected"]), st.sampled_from([0, 0.2]))
def test_index_one_hot_and_soft_targets_that_say_the_same_agree(
    seed: int, reduction: Any, weighting: Any, smoothing: float
) -> None:
    z, y, w, s = batch(seed)
    spec = SoftmaxCrossEntropy(
        class_weight=w, reduction=reduction, weighting=weighting, label_smoothing=smoothing, precision="exact"
    )
    hard = cwn.loss_and_grad(spec, z, y, s)
    for dtype in (np.float64, np.int8, np.bool_):
        soft = cwn.loss_and_grad(spec, z, np.eye(4)[y].astype(dtype), s)
        np.testing.assert_allclose(soft[0], hard[0], **CLOSE)
        np.testing.assert_allclose(soft[1], hard[1], rtol=1e-12, atol=1e-16)


@given(seeds, st.floats(-1e5, 1e5))
def test_a_common_offset_of_the_logits_changes_nothing(seed: int, offset: float) -> None:
    z, y, w, s = batch(seed)
    z, offset = np.round(z, 1), np.round(offset)
    spec = SoftmaxCrossEntropy(class_weight=w, label_smoothing=0.1)
    shifted = z + offset
    for a, b in zip(
        cwn.loss_and_grad(spec, shifted - offset, y, s), cwn.loss_and_grad(spec, shifted, y, s), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-16)


@given(seeds, st.sampled_from(REDUCED))
def test_the_order_of_rows_and_of_classes_does_not_matter(seed: int, reduction: Any) -> None:
    z, y, w, s = batch(seed)
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(7), rng.permutation(4)
    value, gradient = cwn.loss_and_grad(SoftmaxCrossEntropy(class_weight=w, reduction=reduction), z, y, s)
    permuted = SoftmaxCrossEntropy(class_weight=w[classes], reduction=reduction)
    again = cwn.loss_and_grad(permuted, z[rows][:, classes], np.argsort(classes)[y[rows]], s[rows])
    np.testing.assert_allclose(again[0], value, **CLOSE)
    np.testing.assert_allclose(again[1], gradient[rows][:, classes], rtol=1e-12)


@given(seeds, st.sampled_from(["sum", "mean_over_weights"]))
def test_a_duplicate_row_is_a_row_of_twice_the_weight(seed: int, reduction: Any) -> None:
    z, y, w, s = batch(seed)
    spec = SoftmaxCrossEntropy(class_weight=w, reduction=reduction)
    doubled = cwn.loss(spec, np.vstack([z, z[:1]]), np.append(y, y[0]), np.append(s, s[0]))
    s[0] *= 2
    np.testing.assert_allclose(doubled, cwn.loss(spec, z, y, s), **CLOSE)


@given(seeds, st.sampled_from(["sum", "mean_over_weights", "mean_over_nonzero"]))
def test_a_weight_of_zero_is_removal(seed: int, reduction: Any) -> None:
    z, y, w, s = batch(seed)
    spec = SoftmaxCrossEntropy(class_weight=w, reduction=reduction, label_smoothing=0.1)
    z[2] = [np.nan, np.inf, -np.inf, 0]
    s[2] = 0
    value, gradient = cwn.loss_and_grad(spec, z, y, s)
    kept = np.arange(7) != 2
    removed = cwn.loss_and_grad(spec, z[kept], y[kept], s[kept])
    np.testing.assert_allclose(value, removed[0], **CLOSE)
    np.testing.assert_array_equal(gradient[2], 0)
    np.testing.assert_allclose(gradient[kept], removed[1], rtol=1e-12)


@given(seeds, st.sampled_from(["mean_over_weights", "mean_over_valid", "mean_over_nonzero"]))
def test_ignoring_masking_and_removing_agree(seed: int, reduction: Any) -> None:
    z, y, w, s = batch(seed)
    gone = np.random.default_rng(seed).random(7) < 0.4
    spec = SoftmaxCrossEntropy(class_weight=w, reduction=reduction, ignore_index=255)
    z[gone] = np.nan
    ignored = cwn.loss_and_grad(spec, z, np.where(gone, 255, y), s)
    masked = cwn.loss_and_grad(spec, z, np.where(gone, -7, y), s, mask=~gone)
    removed = cwn.loss(spec, z[~gone], y[~gone], s[~gone])
    np.testing.assert_array_equal(ignored[0], masked[0])
    np.testing.assert_array_equal(ignored[1], masked[1])
    np.testing.assert_array_equal(ignored[1][gone], 0)
    np.testing.assert_allclose(ignored[0], removed, **CLOSE)


@given(seeds, st.integers(1, 6), st.sampled_from(REDUCED))
def test_parts_of_a_batch_add_up_to_it(seed: int, cut: int, reduction: Any) -> None:
    z, y, w, s = batch(seed)
    spec = SoftmaxCrossEntropy(class_weight=w, reduction=reduction, label_smoothing=0.1)
    numerator, denominator = cwn.loss_parts(spec, z, y, s)
    parts = [cwn.loss_parts(spec, z[rows], y[rows], s[rows]) for rows in (slice(cut), slice(cut, None))]
    np.testing.assert_allclose(np.sum(parts, 0)[0], numerator, **CLOSE)
    if reduction != "sum":
        np.testing.assert_allclose(np.sum(parts, 0)[1], denominator, **CLOSE)
    value, gradient = cwn.loss_and_grad(spec, z, y, s)
    np.testing.assert_allclose(value, numerator / denominator, **CLOSE)
    if reduction != "sum":
        first = cwn.loss_and_grad(spec, z[:cut], y[:cut], s[:cut], denominator=denominator)
        np.testing.assert_array_equal(first[1], gradient[:cut])  # a row's gradient does not depend on the split


@given(seeds, st.floats(0.5, 8), st.sampled_from([1, -1]))
def test_a_scale_of_all_weights_cancels_in_a_weighted_mean(seed: int, scale: float, sign: int) -> None:
    z, y, w, s = batch(seed)
    spec = SoftmaxCrossEntropy(class_weight=w)
    np.testing.assert_allclose(cwn.loss(spec, z, y, sign * scale * s), cwn.loss(spec, z, y, s), **CLOSE)


@given(seeds)
def test_weights_of_the_other_sign_give_the_opposite_bits(seed: int) -> None:
    call = random_call(seed, signed=True)
    if call.spec.reduction in ("mean_over_weights", "mean_over_nonzero") and "denominator" not in call.arguments:
        call.spec = replace(call.spec, reduction="sum")
    call.spec = replace(call.spec, zero_denominator="zero")
    found = cwn.loss_and_grad(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    call.arguments["sample_weight"] = -call.arguments["sample_weight"]
    opposite = cwn.loss_and_grad(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    for x, y in zip(found, opposite, strict=True):
        np.testing.assert_array_equal(x, -y)


@given(seeds)
def test_two_classes_are_the_binary_loss_of_their_difference(seed: int) -> None:
    z, y, w, s = batch(seed, classes=2)
    softmax = cwn.loss(SoftmaxCrossEntropy(class_weight=w), z, y, s)
    binary = cwn.loss(SigmoidCrossEntropy(class_weight=tuple(w)), z[:, 1] - z[:, 0], y, s)
    np.testing.assert_allclose(binary, softmax, rtol=1e-12)


@given(seeds)
def test_rows_of_a_softmax_gradient_sum_to_zero(seed: int) -> None:
    call = random_call(seed, inputs="logits")
    if isinstance(call.spec, SoftmaxCrossEntropy):
        _, gradient = cwn.loss_and_grad(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
        axis = 0 if call.logits.ndim == 1 else call.spec.axis
        bound = 1e-14 * (1 + np.abs(gradient).max(initial=0))
        np.testing.assert_allclose(gradient.sum(axis), 0, atol=bound, rtol=0)


@pytest.mark.parametrize("reduction", REDUCED)
@pytest.mark.parametrize(("zero_denominator", "expected"), [("zero", 0.0), ("nan", np.nan)])
def test_a_denominator_of_zero_gives_what_the_spec_says_and_no_gradient(
    reduction: Any, zero_denominator: Any, expected: float
) -> None:
    spec = SoftmaxCrossEntropy(
        reduction=reduction, zero_denominator=zero_denominator, ignore_index=-1, label_smoothing=0.1
    )
    ignored = cwn.loss_and_grad(spec, np.array([[np.nan, 1], [np.inf, 0]]), np.array([-1, -1]))
    empty = cwn.loss_and_grad(spec, np.zeros((0, 2)), np.zeros(0, int))
    for value, gradient in (ignored, empty):
        counts_rows = reduction in ("mean_over_positions", "mean_over_batch") and len(gradient)
        np.testing.assert_array_equal(value, 0.0 if reduction == "sum" or counts_rows else expected)
        np.testing.assert_array_equal(gradient, 0)
