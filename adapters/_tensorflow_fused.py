"""The row losses of index targets on TensorFlow, and their gradient in closed form.

TensorFlow's kernels and XLA's make 0 of a number below the smallest normal one. So the exponentials of a float32 row
are scaled, ``(exp(x / 2) * 2**32)**2``, which rounds nothing away, and sums and weights of a row are float64.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ._tensorflow_arrays import cast, round_once, xp  # isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util  # nothing public says what has a tangent

from .. import composite
from .._arrays import Array
from ..lowering import SoftmaxCoefficients
from ..spec import SoftmaxCrossEntropy

LARGE = 1 << 16  # logits, from which on a graph's rows are compiled
MOST = 64  # calls that are compiled; XLA keeps them for good

_ROWS = SoftmaxCrossEntropy(reduction="none")
_MANY = 64  # classes, from which on a scatter costs less than a product with one-hot rows
_compiled: dict[Any, tuple[Any, Any]] = {}

Arrays = tuple[Array, ...]


def hard(z: Array, index: Array, *, axis: int, inside: Any, compiled: bool = False) -> Arrays:
    """Return -log q_y in float64, and for `slopes` max z, R_y and S of each row; names as in `classweight.kernels`.

    What XLA compiles makes the exponentials again there, in one pass with the gradient; else they are returned too.
    """
    z = tf.cast(z, inside)
    top, target = tf.reduce_max(z, axis, keepdims=True), _pick(z, index, axis)
    e = _others(z, top, index, axis, compiled)
    others = tf.cast(tf.reduce_sum(e, axis, keepdims=True), tf.float64) * _unit(inside)
    total = others + tf.cast(tf.exp(target - top), tf.float64)
    near, far = tf.math.log1p(tf.cast(others, inside)), tf.math.log(tf.cast(total, inside))
    loss = tf.cast(tf.where(tf.equal(target, top), near, far), tf.float64)
    if inside != tf.float64:  # float32 does not hold every R_y
        loss = tf.where(others < 2.0**-13, others * (1 - others / 2), loss)
    loss += tf.cast(top, tf.float64) - tf.cast(target, tf.float64)
    return (loss, top, others, total) if compiled else (loss, top, others, total, e)


def slopes(
    z: Array,
    index: Array,
    upstream: Array,
    top: Array,
    others: Array,
    total: Array,
    e: Array | None = None,
    *,
    axis: int,
    inside: Any,
    compiled: bool = False,
) -> Array:
    """Return ``upstream_i (q_ic - [c = y_i])`` in the type of ``z``; a row whose upstream is 0 is 0."""
    unit = _unit(inside)
    scale = tf.where(tf.equal(upstream, 0), tf.zeros((), tf.float64), upstream / total)
    at_target = tf.cast(tf.math.multiply_no_nan(-others, scale), inside)
    if e is None:
        e = _others(tf.cast(z, inside), top, index, axis, compiled)
    # The unit joins the scale unless float32 does not hold the product.
    joins = tf.abs(scale) >= 2.0**-62
    first = tf.cast(tf.where(joins, scale * unit, scale), inside)
    g = _times(e, first) if compiled else tf.math.multiply_no_nan(e, first)
    if unit != 1:
        g *= tf.where(joins, tf.ones((), inside), tf.constant(unit, inside))
    if _scatters(z, axis, compiled):
        g = _scatter(g, index, at_target)
    else:
        g += at_target * _one_hot(index, z.shape[axis], axis, inside)
    return round_once(g, z.dtype)


def losses(z: Array, index: Array, axis: int, inside: Any) -> Array:
    """Return -log q_y in float64, differentiable any number of times in ``z``, while a graph is traced."""
    forward, backward = _halves(z, axis, inside)

    def first(z: Array, index: Array) -> tuple[Array, Any]:
        loss, *saved = forward(tf.stop_gradient(z), index)

        def gradient(upstream: Array) -> tuple[Array, None]:
            return tf.custom_gradient(second)(upstream, z, index, *saved), None

        return loss, gradient

    def second(*given: Array) -> tuple[Array, Any]:
        # Of this graph, which the gradient's may see: these may be of the one that `first` was traced in.
        upstream, z, index, *saved = map(tf.identity, given)

        def gradient(direction: Array) -> tuple[Array | None, ...]:
            found = second_order(lambda z: _composite(z, index, axis, inside), [z], upstream, [direction])
            return (*found, *(None for _ in (index, *saved)))

        return backward(tf.stop_gradient(z), index, tf.stop_gradient(upstream), *saved), gradient

    return tf.custom_gradient(first)(z, index)


def is_forward_mode(arrays: list[Array]) -> bool:
    """Whether a tangent is carried along: it comes of a gradient's own, in which no tape records."""
    return bool(forwardprop_util.pack_tangents(arrays).tangents)


def gradients(f: Any, inputs: Any, upstream: Any) -> list[Array]:
    """Return the gradients of f(*inputs), a tensor or several."""
    if not tf.executing_eagerly():  # where a graph's gradient has a tangent, no tape records
        inputs = [tf.identity(x) for x in inputs]
        found = tf.gradients(f(*inputs), inputs, upstream, unconnected_gradients="zero")
    else:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = f(*inputs)
        found = tape.gradient(value, inputs, upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(x) for x in found]  # of a gather they are slices


def second_order(f: Any, inputs: Any, upstream: Array, directions: Any) -> list[Array]:
    """Return the gradient of the gradients of f(*inputs), to the upstream gradient and the inputs."""

    def slopes(upstream: Array, *inputs: Array) -> list[Array]:
        return gradients(f, inputs, upstream)

    return gradients(slopes, [upstream, *inputs], list(directions))


def _halves(z: Array, axis: int, inside: Any) -> tuple[Any, Any]:
    """Return `hard` and `slopes`, compiled where there are many rows, their shape known in advance."""
    halves = partial(hard, axis=axis, inside=inside), partial(slopes, axis=axis, inside=inside)
    if None in z.shape or z.shape.num_elements() < LARGE:
        return halves
    kind = (z.dtype, tuple(z.shape), axis, inside)
    if kind not in _compiled and len(_compiled) < MOST:
        _compiled[kind] = tuple(
            tf.function(partial(half, compiled=True), autograph=False, jit_compile=True) for half in halves
        )
    return _compiled.get(kind, halves)


def _composite(z: Array, index: Array, axis: int, inside: Any) -> Array:
    alpha = tf.ones_like(index, tf.float64)
    c = SoftmaxCoefficients(axis, index, None, alpha, column=None, beta=None, row=None, denominator=None)
    return tf.cast(composite.rows(xp, _ROWS, cast(z, inside), c, xp.eps(z), inside), tf.float64)


def _unit(inside: Any) -> float:
    return 1.0 if inside == tf.float64 else 2.0**-64


def _others(z: Array, top: Array, index: Array, axis: int, compiled: bool) -> Array:
    """Return exp(z - max z) / unit, and 0 at the target."""
    unit = _unit(z.dtype)
    e = tf.exp(z - top) if unit == 1 else tf.square(tf.exp((z - top) * 0.5) * unit**-0.5)
    if _scatters(z, axis, compiled):
        return _scatter(e, index, tf.zeros_like(index, z.dtype))
    return e * _one_hot(index, z.shape[axis], axis, z.dtype, on=0.0)


def _times(x: Array, rows: Array) -> Array:
    """Return the product, 0 where the row's factor is 0; to choose by row would keep XLA from vectorising the rest."""
    product = x * rows
    return tf.where(tf.math.is_nan(product), tf.where(tf.equal(rows, 0), rows, rows * np.nan), product)


def _scatters(z: Array, axis: int, compiled: bool) -> bool:
    return not compiled and axis == len(z.shape) - 1 and z.shape[axis] > _MANY


def _scatter(x: Array, index: Array, values: Array) -> Array:
    """Return ``x``, written over where that is safe, with ``values`` at ``index`` along the last axis."""
    flat, index = tf.reshape(x, (-1, x.shape[-1])), tf.reshape(index, (-1,))
    places = tf.stack([tf.range(tf.size(index, tf.int64)), index], 1)
    return tf.reshape(tf.tensor_scatter_nd_update(flat, places, tf.reshape(values, (-1,))), tf.shape(x))


def _one_hot(index: Array, num_classes: int, axis: int, dtype: Any, on: float = 1.0) -> Array:
    return tf.one_hot(tf.squeeze(index, axis), num_classes, on, 1 - on, axis, dtype)


def _pick(z: Array, index: Array, axis: int) -> Array:
    last = len(z.shape) - 1
    return tf.gather(z, index, axis=last, batch_dims=last) if axis == last else xp.pick(z, index, axis)
