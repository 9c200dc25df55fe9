"""TensorFlow's drop-ins against TensorFlow's own functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf

import classweight.adapters.tensorflow as cwtf

from ..adapters.test_tensorflow import arrays, value_and_gradient
from ..conventions.configurations import batch, binary_batch, upstream
from ..conventions.differences import named
from .helped import check as check_help


def both(native: Any, ours: Any, logits: Any, rtol: float = 0.0, targets: Any = None) -> None:
    """Assert that value, dtype, shape and gradient are TensorFlow's, to its own rounding."""
    watched = [tf.constant(logits)] + ([] if targets is None else [tf.constant(targets)])
    results = []
    for f in (native, ours):
        with tf.GradientTape() as tape:
            tape.watch(watched)
            value = f(*watched)
            total = tf.reduce_sum(value * upstream(tuple(value.shape), value.dtype.name))
        results.append((value, *tape.gradient(total, watched)))
    eps = rtol or float(np.finfo(logits.dtype).eps)
    for theirs, mine in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        scale = np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(mine, theirs, rtol=512 * eps, atol=8 * eps * scale)


def last(b: Any, array: Any) -> Any:
    return np.moveaxis(array, b.class_axis, -1)


v1 = tf.compat.v1.losses
cases = pytest.mark.parametrize("case", range(200))
DTYPES = ("float64", "float32", "float32", "float16")


@cases
def test_sparse_softmax_cross_entropy_with_logits(case: int) -> None:
    b = batch(case, shapes=[(), (4,), (3, 2), (0,), (2, 3, 2)], dtypes=DTYPES)
    labels = np.asarray(b.labels, b.pick(np.int32, np.int64))
    both(
        lambda z: tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z),
        lambda z: cwtf.sparse_softmax_cross_entropy_with_logits(labels, z),
        last(b, b.logits),
    )


@cases
def test_softmax_cross_entropy_with_logits(case: int) -> None:
    b = batch(case, shapes=[(), (4,), (3, 2), (0,), (2, 3, 2)], dtypes=DTYPES)
    axis = b.pick(-1, b.class_axis)
    logits = b.logits if axis != -1 else last(b, b.logits)
    # What native gets wrong, the gradient of labels that do not sum to 1, is left out.
    assert named("tensorflow-dense-gradient")
    labels = b.distributions(normalised=True)
    labels = labels if axis != -1 else last(b, labels)
    if axis == -1 and len(labels) and b.pick(True, False):
        row = labels.reshape(-1, labels.shape[-1])[0]
        row = b.pick(row, row[None])  # TensorFlow's own gradient to such labels is an error
        both(
            lambda z: tf.nn.softmax_cross_entropy_with_logits(row, z),
            lambda z: cwtf.softmax_cross_entropy_with_logits(row, z),
            logits,
        )
        labels = labels.reshape(-1, labels.shape[-1])
    both(
        lambda z, y: tf.nn.softmax_cross_entropy_with_logits(y, z, axis=axis),
        lambda z, y: cwtf.softmax_cross_entropy_with_logits(y, z, axis=axis),
        logits,
        targets=labels,
    )


@cases
def test_weighted_cross_entropy_with_logits(case: int) -> None:
    b = binary_batch(case, shapes=[(), (4,), (3, 2), (0,), (2, 3, 2)], dtypes=DTYPES)
    both(
        lambda z, y: tf.nn.weighted_cross_entropy_with_logits(y, z, b.pos_weight),
        lambda z, y: cwtf.weighted_cross_entropy_with_logits(y, z, b.pos_weight),
        b.logits,
        targets=b.targets(),
    )


def weights_of(b: Any, shape: tuple[int, ...]) -> Any:
    """Return weights as the v1 losses take them: a scalar, or of the losses' rank with lengths of 1 among them."""
    full = b.rng.uniform(0, 3, shape) * (b.rng.random(shape) < b.pick(0, 0.7, 1))
    some = full[tuple(slice(None) if b.pick(True, False) else slice(1) for _ in shape)]
    return b.pick(1.0, 2.5, 0.0, full, full.astype(b.dtype), some, full.astype(int))


@pytest.mark.parametrize("reduction", sorted(set(v1.Reduction.all())))
@pytest.mark.parametrize("case", range(50))
def test_v1_losses(case: int, reduction: str) -> None:
    b = batch(case, shapes=[(), (4,), (3, 2), (0,), (2, 3, 2)], dtypes=DTYPES)
    logits, kind = last(b, b.logits), b.pick("sparse", "dense", "sigmoid")
    assert named("tensorflow-v1-float32")
    rounding = {} if b.dtype == "float16" else {"rtol": 1e-7}
    if kind == "sparse":
        labels = b.labels[..., None] if b.labels.ndim and b.pick(True, False) else b.labels
        weights = weights_of(b, b.labels.shape)
        both(
            lambda z: v1.sparse_softmax_cross_entropy(labels, z, weights, reduction=reduction),
            lambda z: cwtf.sparse_softmax_cross_entropy(labels, z, weights, reduction=reduction),
            logits,
            **rounding,
        )
        return
    name = "softmax_cross_entropy" if kind == "dense" else "sigmoid_cross_entropy"
    labels = last(b, b.distributions(normalised=True) if kind == "dense" else b.one_hot())
    weights = weights_of(b, logits.shape if kind == "sigmoid" else b.labels.shape)
    both(
        lambda z: getattr(v1, name)(labels, z, weights, b.smoothing, reduction=reduction),
        lambda z: getattr(cwtf, name)(labels, z, weights, b.smoothing, reduction=reduction),
        logits,
        **rounding,
    )


@pytest.mark.parametrize("reduction", sorted(set(v1.Reduction.all())))
@pytest.mark.parametrize("weights", [[1.0, -0.5, 2], [-1.0, 0.25, 0], [0.5, 0.5, -1], -2.0], ids=str)
def test_v1_losses_under_weights_of_either_sign(weights: Any, reduction: str) -> None:
    z, y = np.array([[2, -1, 0.5], [0, 1, -2], [1, 0.25, 0.75]]), np.eye(3)
    rows = np.reshape(weights, (-1, 1)) if np.ndim(weights) else weights
    for name, labels, weight in (
        ("sparse_softmax_cross_entropy", np.arange(3), weights),
        ("softmax_cross_entropy", y, weights),
        ("sigmoid_cross_entropy", y, rows),
    ):
        native, ours = getattr(v1, name), getattr(cwtf, name)
        both(
            lambda z, f=native, y=labels, w=weight: f(y, z, w, reduction=reduction),
            lambda z, f=ours, y=labels, w=weight: f(y, z, w, reduction=reduction),
            z,
            rtol=1e-7,
        )


def test_weighted_cross_entropy_under_weights_of_either_sign() -> None:
    for weight in (-0.5, np.array([1, -2, 0.5])):
        both(
            lambda z, y, w=weight: tf.nn.weighted_cross_entropy_with_logits(y, z, w),
            lambda z, y, w=weight: cwtf.weighted_cross_entropy_with_logits(y, z, w),
            np.array([[2, -1, 0.5], [0.25, 1, -2]]),
            targets=np.array([[0, 1, 0.25], [0.5, 0, 1]]),
        )


def test_a_gradient_flows_to_the_weights_of_v1_losses() -> None:
    z, y = arrays("index")
    weights = tf.constant([0.5, 1, 2, 0, 3, 1], tf.float64)
    for reduction in set(v1.Reduction.all()):
        gradients = []
        for module in (v1, cwtf):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                value = module.sparse_softmax_cross_entropy(y, z, weights, reduction=reduction)
            gradients.append(tape.gradient(value, weights))
        np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-7)


Z = tf.constant([[2, -1, 0.5], [0, 1, -2]])
Y = tf.constant([[0.0, 1, 0], [0, 0, 1]])
REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "sparse-label-column": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([[0], [1]], Z),
    "sparse-uint8": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits(np.array([0, 1], np.uint8), Z),
    "sparse-bool": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([True, False], Z),
    "sparse-float-labels": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([0.0, 1.0], Z),
    "sparse-label-too-large": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([0, 3], Z),
    "sparse-label-negative": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([0, -1], Z),
    "sparse-number-of-labels": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2], Z),
    "integer-logits": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits([0], [[1, 2]]),
    "scalar-logits": lambda nn, _: nn.sparse_softmax_cross_entropy_with_logits(0, 1.0),
    "dense-classes": lambda nn, _: nn.softmax_cross_entropy_with_logits(tf.ones((2, 2)), Z),
    "dense-rows": lambda nn, _: nn.softmax_cross_entropy_with_logits(tf.ones((3, 3)), Z),
    "dense-enlarging": lambda nn, _: nn.softmax_cross_entropy_with_logits(tf.ones((2, 3)), Z[0]),
    "dense-scalar": lambda nn, _: nn.softmax_cross_entropy_with_logits(1.0, Z),
    "dense-axis": lambda nn, _: nn.softmax_cross_entropy_with_logits(Y, Z, axis=2),
    "weighted-shape": lambda nn, _: nn.weighted_cross_entropy_with_logits(Y[0], Z, 1.0),
    "weighted-dtype": lambda nn, _: nn.weighted_cross_entropy_with_logits(tf.cast(Y, tf.float64), Z, 1.0),
    "weighted-pos-weight-shape": lambda nn, _: nn.weighted_cross_entropy_with_logits(Y, Z, [1.0, 2]),
    "v1-no-labels": lambda _, v1: v1.sparse_softmax_cross_entropy(None, Z),
    "v1-no-logits": lambda _, v1: v1.softmax_cross_entropy(Y, None),
    "v1-no-weights": lambda _, v1: v1.sigmoid_cross_entropy(Y, Z, None),
    "v1-reduction": lambda _, v1: v1.sparse_softmax_cross_entropy([0, 1], Z, reduction="mean"),
    "v1-weights-of-another-rank": lambda _, v1: v1.sigmoid_cross_entropy(Y, Z, [1.0, 2]),
    "v1-weights-of-another-length": lambda _, v1: v1.sparse_softmax_cross_entropy([0, 1], Z, [1.0, 2, 3]),
    "v1-dense-shape": lambda _, v1: v1.softmax_cross_entropy(Y[:1], Z),
    "v1-sigmoid-shape": lambda _, v1: v1.sigmoid_cross_entropy(Y[:1], Z),
    "v1-label": lambda _, v1: v1.sparse_softmax_cross_entropy([0, 3], Z, [1.0, 0]),
}


@pytest.mark.parametrize("call", list(REFUSED.values()), ids=list(REFUSED))
def test_what_native_refuses_is_refused(call: Any) -> None:
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
        call(tf.nn, v1)
    with pytest.raises((ValueError, TypeError), match=r"^`"):
        call(cwtf, cwtf)


def test_the_gradient_is_right_whatever_labels_sum_to() -> None:
    labels = tf.constant([[1.0, 2, 0], [0, 0, 0]])
    f = value_and_gradient(lambda z: tf.reduce_sum(cwtf.softmax_cross_entropy_with_logits(labels, z)))
    q = tf.nn.softmax(Z)
    np.testing.assert_allclose(f(Z)[1], q * tf.reduce_sum(labels, 1, keepdims=True) - labels, rtol=1e-6)


def test_lists_are_taken_as_tensorflow_takes_them() -> None:
    for nn in (tf.nn, cwtf):
        value = nn.softmax_cross_entropy_with_logits([[0, 1, 0]], [[2.0, -1, 0.5]])
        assert value.dtype == tf.float32
    for module in (v1, cwtf):
        assert module.sigmoid_cross_entropy([[0, 1]], [[2.0, -1]], 2).dtype == tf.float32


@pytest.mark.parametrize("collection", ["losses", "mine", None])
def test_a_v1_loss_joins_the_collection_of_its_graph(collection: str | None) -> None:
    found = []
    for module in (v1, cwtf):
        with tf.Graph().as_default() as graph:
            value = module.sparse_softmax_cross_entropy(
                tf.constant([0, 1]), Z.numpy(), scope="scope", loss_collection=collection
            )
            assert value.op.name.startswith("scope")
            assert graph.get_all_collection_keys() == ([collection] if collection else [])
            with tf.compat.v1.Session() as session:
                found.append(session.run(value))
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_autograph_leaves_the_functions_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f = tf.function(lambda z, y: cwtf.softmax_cross_entropy(y, z, label_smoothing=0.1))
        np.testing.assert_allclose(f(Z, Y), v1.softmax_cross_entropy(Y, Z, label_smoothing=0.1), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sparse_softmax_cross_entropy_with_logits", "sparse_softmax_cross_entropy_with_logits"),
        ("softmax_cross_entropy_with_logits", "softmax_cross_entropy_with_logits"),
        ("weighted_cross_entropy_with_logits", "weighted_cross_entropy_with_logits"),
        ("sparse_softmax_cross_entropy", "v1_losses"),
        ("softmax_cross_entropy", "v1_losses"),
        ("sigmoid_cross_entropy", "v1_losses"),
    ],
)
def test_help_says_what_differs_from_native(name: str, call: str) -> None:
    check_help("tensorflow", getattr(cwtf, name), call)
