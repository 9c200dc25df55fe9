"""The loss of Flax's examples against its convention."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.training import common_utils

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

from .configurations import COUNT, SHAPES, assert_same, batch, upstream
from .differences import Shown, named

shows = Shown("flax")


def recipe(z: Any, targets: Any, weights: Any = None, label_smoothing: float = 0.0) -> tuple[Any, Any]:
    """Return what examples/wmt/train.py of flax computes: a sum of losses, and what it is divided by."""
    num_classes = z.shape[-1]
    on, off = 1 - label_smoothing, label_smoothing / (num_classes - 1)
    smallest = -(on * jnp.log(on) + (num_classes - 1) * off * jnp.log(off + 1e-20))
    soft = common_utils.onehot(targets, num_classes, on_value=on, off_value=off)
    losses = -jnp.sum(soft * jax.nn.log_softmax(z), axis=-1) - smallest
    if weights is None:
        return losses.sum(), np.prod(targets.shape)
    return (losses * weights).sum(), weights.sum()


def mean(z: Any, *arguments: Any) -> Any:
    total, divisor = recipe(z, *arguments)
    return total / divisor


def entropy(smoothing: float, num_classes: int) -> float:
    """Return the smallest loss of a smoothed label."""
    p = np.array([1 - smoothing, *[smoothing / (num_classes - 1)] * (num_classes - 1)])
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


@pytest.mark.parametrize("case", range(COUNT // 8))
def test_compute_weighted_cross_entropy(case: int) -> None:
    b = batch(case, shapes=SHAPES, min_classes=2)
    logits = np.moveaxis(b.logits, 1, -1)
    weight, smoothing = b.pick(None, b.class_weight), b.pick(0.0, 0.1, 0.4)
    sample_weight = b.sample_weight if weight is not None else b.pick(None, b.sample_weight)
    weights = sample_weight if weight is None else b.class_weight[b.labels] * sample_weight
    with jax.enable_x64(True):
        z = jnp.asarray(logits)
        weights = None if weights is None else jnp.asarray(weights)
        loss, pullback = jax.vjp(jax.jit(lambda z: mean(z, b.labels, weights, smoothing)), z)
        assert loss.dtype == z.dtype
        gradient = None
        if weights is None or weights.any():
            (gradient,) = pullback(jnp.asarray(upstream((), loss.dtype.name)))
    assert named("flax-smoothing-constant")
    native = np.asarray(np.asarray(loss) + entropy(smoothing, b.num_classes), loss.dtype)
    spec = conventions.flax.compute_weighted_cross_entropy(smoothing, b.num_classes, class_weight=weight)
    assert named("flax-float32-labels")
    dtype = np.float32 if smoothing else None
    assert_same((native, gradient), spec, logits, b.labels, sample_weight, dtype=dtype)


Z = np.array([[2.0, -1, 0.5], [0, 1, -2]], np.float32)
spec = conventions.flax.compute_weighted_cross_entropy()


@shows("flax-smoothing-constant")
def smoothing_constant() -> None:
    smoothed = conventions.flax.compute_weighted_cross_entropy(0.1, 3)
    expected, slopes = reference(smoothed, Z, [0, 1])
    np.testing.assert_allclose(mean(Z, np.array([0, 1]), None, 0.1), expected - entropy(0.1, 3), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(mean)(Z, np.array([0, 1]), None, 0.1), slopes, rtol=1e-5)


@shows("flax-float32-labels")
def float32_labels() -> None:
    with jax.enable_x64(True):
        z, labels = jnp.asarray(Z, jnp.float64), np.array([0, 1])
        found = float(mean(z, labels, None, 0.1)) + entropy(0.1, 3)
    smoothed = conventions.flax.compute_weighted_cross_entropy(0.1, 3)
    assert 1e-10 < abs(found / reference(smoothed, Z, labels)[0] - 1) < 1e-6


@shows("flax-labels-out-of-range")
def labels_out_of_range() -> None:
    labels = np.array([0, 3])
    total, divisor = recipe(Z, labels)
    np.testing.assert_allclose(total, reference(spec, Z[:1], [0])[0], rtol=1e-6)
    assert divisor == 2
    assert not jax.grad(mean)(Z, labels)[1].any()
    with pytest.raises(IndexError, match="`targets` must"):
        cwn.loss(spec, Z, labels)


@shows("flax-zero-times-infinity")
def zero_times_infinity() -> None:
    z = np.array([[0, -np.inf, 1]], np.float32)
    assert np.isnan(mean(z, np.array([0])))
    assert reference(spec, z, [0])[0] == pytest.approx(1.3132616, rel=1e-7)


@shows("flax-one-class")
def one_class() -> None:
    with pytest.raises(ZeroDivisionError):
        recipe(Z[:, :1], np.array([0, 0]))
    assert cwn.loss(spec, Z[:, :1], [0, 0]) == 0


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    shows.checks[difference]()


def test_a_smoothing_needs_classes_and_leaves_the_label_the_most() -> None:
    page = conventions.flax
    assert page.compute_weighted_cross_entropy(2 / 3, 3).label_smoothing == 1
    with pytest.raises(ValueError, match="`num_classes` must be at least 2 where there is label_smoothing; got None"):
        page.compute_weighted_cross_entropy(0.1)
    with pytest.raises(ValueError, match=r"`label_smoothing` must be a number from 0 to 0\.6667"):
        page.compute_weighted_cross_entropy(0.7, 3)
