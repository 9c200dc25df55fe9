"""TensorFlow's own functions against their conventions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

from .configurations import COUNT, SHAPES, Batch, assert_same, batch, binary_batch, upstream
from .differences import Shown, named

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf

SHAPES = [(), *SHAPES, (0,), (0, 2)]
Reduction = tf.compat.v1.losses.Reduction
shows = Shown("tensorflow")
cases = pytest.mark.parametrize("case", range(COUNT))


def native(function: Callable[[Any], Any], logits: Any) -> tuple[Any, Any]:
    """Return TensorFlow's loss and gradient."""
    z = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = function(z)
        assert loss.dtype == z.dtype
        total = tf.reduce_sum(loss * upstream(tuple(loss.shape), z.dtype.name))
    return loss.numpy(), tape.gradient(total, z).numpy()


def last(b: Batch, array: Any) -> Any:
    """Return an array with the class axis moved last."""
    return np.moveaxis(array, b.class_axis, -1)


def weights_of(b: Batch) -> tuple[Any, Any]:
    """Return sample weights as ours and as TensorFlow takes them: with the losses' rank, or a scalar."""
    weight = b.sample_weight
    if b.labels.ndim == 2:
        column = weight[:, :1]
        return b.pick((None, 1.0), (weight, weight), (column[:, 0], column))
    return b.pick((None, 1.0), (weight, weight), (2.5, 2.5), (0.0, 0.0))


@pytest.mark.parametrize("reduction", sorted(set(Reduction.all())))
@pytest.mark.parametrize("case", range(COUNT // 3))
def test_v1_softmax_cross_entropy(case: int, reduction: str) -> None:
    b = batch(case, shapes=SHAPES)
    logits = last(b, b.logits)
    weight, weights = weights_of(b)
    class_weight = b.pick(None, b.class_weight)
    sparse = b.pick(True, False)
    targets = b.labels if sparse else last(b, b.distributions(normalised=True))
    smoothing = 0.0 if sparse else b.smoothing
    if class_weight is not None:
        weights = weights * tf.gather(class_weight, targets if sparse else targets.argmax(-1))

    def function(z: Any) -> Any:
        if sparse:
            return tf.compat.v1.losses.sparse_softmax_cross_entropy(targets, z, weights, reduction=reduction)
        return tf.compat.v1.losses.softmax_cross_entropy(targets, z, weights, smoothing, reduction=reduction)

    spec = conventions.tensorflow.v1_softmax_cross_entropy(smoothing, reduction, class_weight=class_weight)
    assert named("tensorflow-v1-float32")
    assert_same(native(function, logits), spec, logits, targets, weight, dtype=np.float32)


def test_the_two_names_of_the_default_reduction_are_one() -> None:
    assert Reduction.SUM_OVER_NONZERO_WEIGHTS == Reduction.SUM_BY_NONZERO_WEIGHTS
    spec = conventions.tensorflow.v1_softmax_cross_entropy(reduction=Reduction.SUM_OVER_NONZERO_WEIGHTS)
    assert spec == conventions.tensorflow.v1_softmax_cross_entropy()


@cases
def test_weighted_cross_entropy_with_logits(case: int) -> None:
    b = binary_batch(case, shapes=SHAPES)
    targets = b.targets()
    spec = conventions.tensorflow.weighted_cross_entropy_with_logits(b.pos_weight)
    got = native(lambda z: tf.nn.weighted_cross_entropy_with_logits(targets, z, b.pos_weight), b.logits)
    assert_same(got, spec, b.logits, targets)


@cases
def test_weight_map(case: int) -> None:
    b = batch(case, shapes=SHAPES)
    logits, targets = last(b, b.logits), last(b, b.distributions(normalised=True))

    def recipe(z: Any) -> Any:
        weights = tf.reduce_sum(targets * b.class_weight, axis=-1)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, z) * weights)

    assert_same(native(recipe, logits), conventions.tensorflow.weight_map(b.class_weight), logits, targets)


Z = np.array([[2.0, -1, 0.5], [0, 1, -2]])
v1 = tf.compat.v1.losses


@shows("tensorflow-dense-gradient")
def dense_gradient() -> None:
    q = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    for y in (np.array([[1.0, 2, 0], [0, 0, 4]]), np.zeros((2, 3))):
        gradient = native(lambda z, y=y: v1.softmax_cross_entropy(y, z, reduction="weighted_sum"), Z)[1]
        factor = upstream((), "float64")
        np.testing.assert_allclose(gradient, factor * (q - y), rtol=1e-6)
        spec = conventions.tensorflow.v1_softmax_cross_entropy(reduction="weighted_sum")
        expected = q * y.sum(-1, keepdims=True) - y
        np.testing.assert_allclose(reference(spec, Z, y)[1], expected, rtol=1e-13)


@shows("tensorflow-zero-times-infinity")
def zero_times_infinity() -> None:
    z, y = np.array([[0, -np.inf, 1]]), np.array([[1.0, 0, 0]])
    assert np.isnan(tf.nn.softmax_cross_entropy_with_logits(y, z).numpy())
    spec = conventions.tensorflow.v1_softmax_cross_entropy()
    assert reference(spec, z, y)[0] == pytest.approx(1.3132616, rel=1e-7)


@shows("tensorflow-zero-weight-nan")
def zero_weight_nan() -> None:
    z = np.array([[2.0, -1, 0.5], [np.nan, 1, -2]])
    assert np.isnan(v1.sparse_softmax_cross_entropy([0, 1], z, [1.0, 0]).numpy())
    spec = conventions.tensorflow.v1_softmax_cross_entropy()
    assert reference(spec, z, [0, 1], [1.0, 0])[0] == pytest.approx(0.2413113, rel=2e-7)


@shows("tensorflow-v1-float32")
def v1_float32() -> None:
    loss = v1.sparse_softmax_cross_entropy([0, 1], Z).numpy()
    expected = reference(conventions.tensorflow.v1_softmax_cross_entropy(), Z, [0, 1])[0]
    assert loss.dtype == np.float64
    assert 1e-10 < abs(loss / expected - 1) < 1e-6


@shows("tensorflow-sparse-bfloat16")
def sparse_bfloat16() -> None:
    z = tf.constant(Z[:1], tf.bfloat16)
    assert float(tf.nn.sparse_softmax_cross_entropy_with_logits([0], z)[0]) == pytest.approx(0.2353516, rel=1e-6)
    exact = reference(conventions.tensorflow.v1_softmax_cross_entropy(), Z[:1], [0])[0]
    assert float(tf.cast(tf.constant(exact), tf.bfloat16)) == pytest.approx(0.2412109, rel=1e-6)


@shows("tensorflow-xla-labels")
def xla_labels() -> None:
    compiled = tf.function(tf.nn.sparse_softmax_cross_entropy_with_logits, jit_compile=True)
    losses = compiled(tf.constant([0, 3]), tf.constant(Z)).numpy()
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    with pytest.raises(IndexError, match="`targets` must"):
        cwn.loss(conventions.tensorflow.v1_softmax_cross_entropy(), Z, [0, 3])


@shows("tensorflow-weights-shape")
def weights_shape() -> None:
    z, labels, weights = np.stack([Z, Z + 1]), np.zeros((2, 2), np.int64), np.array([[1.0, 3]])
    assert np.isfinite(v1.sparse_softmax_cross_entropy(labels, z, weights).numpy())
    with pytest.raises(ValueError, match="`sample_weight` must be a scalar or have a shape that is a prefix"):
        cwn.loss(conventions.tensorflow.v1_softmax_cross_entropy(), z, labels, weights)


@shows("tensorflow-pos-weight-shape")
def pos_weight_shape() -> None:
    z, t, pos_weight = np.zeros(3), np.ones(3), np.ones((2, 3))
    assert tf.nn.weighted_cross_entropy_with_logits(t, z, pos_weight).shape == (2, 3)
    with pytest.raises(ValueError, match="`class_weight` must"):
        cwn.loss(conventions.tensorflow.weighted_cross_entropy_with_logits(pos_weight), z, t)


@shows("tensorflow-invalid-smoothing")
def invalid_smoothing() -> None:
    y = np.array([[0.0, 1, 0], [1, 0, 0]])
    assert v1.softmax_cross_entropy(y, Z, label_smoothing=-1) == v1.softmax_cross_entropy(y, Z)
    assert np.isfinite(v1.softmax_cross_entropy(y, Z, label_smoothing=2))
    for bad in (-1, 2):
        with pytest.raises(ValueError, match="`label_smoothing` must be a number from 0 to 1"):
            conventions.tensorflow.v1_softmax_cross_entropy(bad)


@shows("tensorflow-invalid-weights")
def invalid_weights() -> None:
    assert np.isinf(v1.sparse_softmax_cross_entropy([0, 1], Z, [np.inf, 3]))
    with pytest.raises(ValueError, match="`sample_weight` must be"):
        cwn.loss(conventions.tensorflow.v1_softmax_cross_entropy(), Z, [0, 1], [np.inf, 3])


@shows("tensorflow-invalid-targets")
def invalid_targets() -> None:
    y = np.array([[1.5, -0.5, 0], [0, 1, 0]])
    specs = conventions.tensorflow
    for loss, spec in [
        (tf.nn.softmax_cross_entropy_with_logits(y, Z), specs.v1_softmax_cross_entropy()),
        (tf.nn.weighted_cross_entropy_with_logits(y, Z, 1.0), specs.weighted_cross_entropy_with_logits(1)),
    ]:
        assert np.isfinite(loss).all()
        with pytest.raises(ValueError, match="`targets` must"):
            cwn.loss(spec, Z, y)


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    shows.checks[difference]()


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="`reduction` must be one of 'none', 'weighted_sum'"):
        conventions.tensorflow.v1_softmax_cross_entropy(reduction="mean")
    with pytest.raises(ValueError, match="Invalid Reduction Key"):
        v1.softmax_cross_entropy(np.ones((2, 3)), Z, reduction="mean")
