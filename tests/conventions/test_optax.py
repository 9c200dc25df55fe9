"""optax's own functions against their conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

from .configurations import COUNT, SHAPES, assert_same, batch, binary_batch, upstream
from .differences import Shown, named

SHAPES = [(), *SHAPES, (0,), (0, 2)]
shows = Shown("optax")
# JAX compiles for each shape anew.
cases = pytest.mark.parametrize("case", range(COUNT // 8))


def native(function: Callable[[Any], Any], logits: Any) -> tuple[Any, Any]:
    """Return optax's loss and gradient."""
    with jax.enable_x64(True):
        loss, pullback = jax.vjp(jax.jit(function), jnp.asarray(logits))
        assert loss.dtype == logits.dtype
        return np.asarray(loss), np.asarray(pullback(jnp.asarray(upstream(loss.shape, loss.dtype.name)))[0])


@cases
def test_softmax_cross_entropy_with_integer_labels(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    weight, where = b.pick(None, b.class_weight), b.pick(None, ~b.ignored)

    def function(z: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(z, b.labels, axis=b.class_axis, where=where)
        return losses if weight is None else losses * jnp.take(weight, b.labels)

    spec = conventions.optax.softmax_cross_entropy(b.class_axis, class_weight=weight)
    assert_same(native(function, b.logits), spec, b.logits, b.labels, mask=where)


@cases
def test_softmax_cross_entropy(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    weight, where, y = b.pick(None, b.class_weight), b.pick(None, ~b.ignored), b.distributions(normalised=False)

    def function(z: Any) -> Any:
        losses = optax.softmax_cross_entropy(z, y, axis=b.class_axis, where=where)
        return losses if weight is None else losses * jnp.take(weight, y.argmax(b.class_axis))

    spec = conventions.optax.softmax_cross_entropy(b.class_axis, class_weight=weight)
    assert_same(native(function, b.logits), spec, b.logits, y, mask=where)


@cases
def test_safe_softmax_cross_entropy(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    z, y = (np.moveaxis(x, b.class_axis, -1) for x in (b.logits, b.distributions(normalised=False)))
    got = native(lambda z: optax.safe_softmax_cross_entropy(z, y), z)
    assert_same(got, conventions.optax.softmax_cross_entropy(), z, y)


@cases
def test_sigmoid_binary_cross_entropy(case: int) -> None:
    b = binary_batch(case, shapes=SHAPES)
    y, pair = b.targets(), b.pick(None, (0.5, 3.0))

    def function(z: Any) -> Any:
        losses = optax.sigmoid_binary_cross_entropy(z, y)
        return losses if pair is None else losses * jnp.where(y > 0.5, pair[1], pair[0]).astype(z.dtype)

    spec = conventions.optax.sigmoid_binary_cross_entropy(class_weight=pair)
    assert_same(native(function, b.logits), spec, b.logits, y)


Z = np.array([[2.0, -1, 0.5], [0, 1, -2]], np.float32)
integer = optax.softmax_cross_entropy_with_integer_labels
softmax = conventions.optax.softmax_cross_entropy()
sigmoid = conventions.optax.sigmoid_binary_cross_entropy()


@shows("optax-confident-rounding")
def confident_rounding() -> None:
    z = np.array([[18, 0]], np.float32)
    assert integer(z, np.array([0])) == 0
    assert jax.grad(lambda z: integer(z, np.array([0])).sum())(z)[0, 0] == 0
    loss, gradient = reference(softmax, z, [0])
    np.testing.assert_allclose((loss[0], gradient[0, 0]), (np.log1p(np.exp(-18)), -1 / (1 + np.exp(18))), rtol=1e-12)


@shows("optax-zero-times-infinity")
def zero_times_infinity() -> None:
    z, y = np.array([[0, -np.inf, 1]], np.float32), np.array([[1.0, 0, 0]], np.float32)
    assert np.isnan(optax.softmax_cross_entropy(z, y)).all()
    assert reference(softmax, z, y)[0] == pytest.approx(1.3132616, rel=1e-7)
    z, y = np.array([np.inf, -np.inf], np.float32), np.array([1.0, 0], np.float32)
    assert np.isnan(optax.sigmoid_binary_cross_entropy(z, y)).all()
    assert reference(sigmoid, z, y)[0].tolist() == [0, 0]


@shows("optax-forward-mode")
def forward_mode() -> None:
    z, y = np.array([-np.inf, 0, 0], np.float32), np.array([0, 1, 0], np.float32)
    assert np.isnan(jax.jacfwd(optax.safe_softmax_cross_entropy)(z, y)).any()
    expected = [0, -0.5, 0.5]
    np.testing.assert_array_equal(jax.grad(optax.safe_softmax_cross_entropy)(z, y), expected)
    np.testing.assert_array_equal(reference(softmax, z, y)[1], expected)


@shows("optax-wrapped-labels")
def wrapped_labels() -> None:
    np.testing.assert_array_equal(integer(Z, np.array([0, -1])), integer(Z, np.array([0, 2])))
    with pytest.raises(IndexError, match=r"`targets` must .*; got -1 at position \(1,\)"):
        cwn.loss(softmax, Z, [0, -1])


@shows("optax-labels-out-of-range")
def labels_out_of_range() -> None:
    for bad in (3, -4):
        labels = np.array([0, bad])
        assert np.isnan(integer(Z, labels)).tolist() == [False, True]
        assert np.isfinite(jax.grad(lambda z, y=labels: integer(z, y).sum())(Z)).all()
        with pytest.raises(IndexError, match="`targets` must"):
            cwn.loss(softmax, Z, labels)


@shows("optax-label-left-out")
def label_left_out() -> None:
    loss = integer(Z[:1], np.array([0]), where=np.array([[False, True, True]]))
    np.testing.assert_allclose(loss, np.log(np.exp(-1) + np.exp(0.5)) - 2, rtol=1e-6)
    left_out = np.array([[-np.inf, -1, 0.5]])
    assert reference(softmax, left_out, [0])[0] == np.inf


@shows("optax-label-gradient")
def label_gradient() -> None:
    y, where = np.array([[0, 1, 0]], np.float32), np.array([[False, True, True]])
    left_out = jax.grad(lambda y: optax.softmax_cross_entropy(Z[:1], y, where=where).sum())(y)
    assert np.isnan(left_out).tolist() == [[True, False, False]]


@shows("optax-half-types")
def half_types() -> None:
    z = jnp.asarray(Z[:1], jnp.bfloat16)
    assert integer(z, np.array([0])) == 0.25
    exact = reference(softmax, np.asarray(z, np.float64), [0])[0]
    assert float(jnp.asarray(exact, jnp.bfloat16)[0]) == pytest.approx(0.2412109, rel=1e-6)


@shows("optax-zero-weight-nan")
def zero_weight_nan() -> None:
    z, s = np.array([[2.0, -1, 0.5], [np.nan, 1, -2]], np.float32), np.array([1.0, 0], np.float32)
    assert np.isnan(integer(z, np.array([0, 1])) * s).tolist() == [False, True]
    assert reference(softmax, z, [0, 1], s)[0][1] == 0


@shows("optax-no-class")
def no_class() -> None:
    z = np.zeros((2, 0), np.float32)
    assert optax.softmax_cross_entropy(z, z).tolist() == [0, 0]
    with pytest.raises(ValueError, match="`logits` must have at least one class"):
        cwn.loss(softmax, z, z)


@shows("optax-invalid-labels")
def invalid_labels() -> None:
    y = np.array([[1.5, -0.5, 0], [0, 1, 0]], np.float32)
    for function, spec in (
        (optax.softmax_cross_entropy, softmax),
        (optax.safe_softmax_cross_entropy, softmax),
        (optax.sigmoid_binary_cross_entropy, sigmoid),
    ):
        assert np.isfinite(function(Z, y)).all()
        with pytest.raises(ValueError, match="`targets` must"):
            cwn.loss(spec, Z, y)


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    shows.checks[difference]()


def test_no_difference_is_left_out() -> None:
    assert named("optax-half-types")
    assert sorted(shows.checks) == sorted(shows.ids)
