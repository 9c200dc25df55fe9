"""The row losses on TensorFlow, and their gradient in closed form: index targets, dense ones, binary ones.

TensorFlow's kernels and XLA's make 0 of a number below the smallest normal one. So the exponentials of a float32 row
are scaled, ``(exp(x / 2) * 2**32)**2``, which rounds nothing away, and sums and weights of a row are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._tensorflow_arrays import round_once, wide_sum, xp  # isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf

from .._arrays import Array
from ..lowering import INF, NAN

_MANY = 64  # classes, from which on a scatter costs less than a product with one-hot rows

Arrays = tuple[Array, ...]


def hard(z: Array, index: Array, *, axis: int, inside: Any, compiled: bool = False) -> Arrays:
    """Return -log q_y in float64, and for `hard_slopes` max z, R_y, S of each row; names as in `classweight.kernels`.

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


def hard_slopes(
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
    scale = tf.where(tf.equal(upstream, 0), tf.zeros((), tf.float64), upstream / total)
    at_target = tf.cast(tf.math.multiply_no_nan(-others, scale), inside)
    if e is None:
        e = _others(tf.cast(z, inside), top, index, axis, compiled)
    g = _scaled(e, scale, compiled)
    if _scatters(z, axis, compiled):
        g = _scatter(g, index, at_target)
    else:
        g += at_target * _one_hot(index, z.shape[axis], axis, inside)
    return round_once(g, z.dtype)


def dense(z: Array, a: Array, *, axis: int, inside: Any) -> Arrays:
    """Return sum a_c (-log q_c) in float64, and for `dense_slopes` max z, R_k, and the sums of a and of a without a_k.

    Of classes that tie for the largest logit, each is the dominant one, and R_k counts the others.
    """
    z = tf.cast(z, inside)
    top = tf.reduce_max(z, axis, keepdims=True)
    is_top = tf.equal(z, top)
    e = xp.where(is_top, 0.0, _exp(z - top))
    others = wide_sum(e, axis) * _unit(inside) + (wide_sum(tf.cast(is_top, inside), axis) - 1)
    others = xp.where(tf.abs(top) < INF, others, NAN)
    weight, rest = wide_sum(a, axis), wide_sum(xp.where(is_top, 0.0, a), axis)
    near = wide_sum(xp.where(xp.equal(a, 0), 0.0, a * (top - z)), axis)
    loss = xp.where(xp.equal(weight, 0), 0.0, weight * tf.math.log1p(others) + near)
    return loss, top, others, weight, rest


def dense_slopes(
    z: Array,
    a: Array,
    upstream: Array,
    top: Array,
    others: Array,
    weight: Array,
    rest: Array,
    *,
    axis: int,
    inside: Any,
    compiled: bool = False,
) -> Array:
    """Return ``upstream_i (A_i q_ic - a_ic)`` in the type of ``z``; a row is 0 whose upstream is, or whose A."""
    x = tf.cast(z, inside)
    dead = xp.equal(upstream, 0) | xp.equal(weight, 0)
    share = weight / (1 + others)
    g = _scaled(_exp(x - top), xp.where(dead, 0.0, upstream * share), compiled)
    g -= a * tf.cast(xp.where(dead, 0.0, upstream), inside)
    # Where q_k > 1/2, the sum over the other classes: A q_k - a_k would cancel.
    at_top = tf.cast(xp.where(dead, 0.0, upstream * (rest - others * share)), inside)
    g = tf.where(tf.equal(x, top) & (others < 1), at_top, g)
    return round_once(tf.where(tf.math.is_nan(g), tf.cast(xp.where(dead, 0.0, NAN * upstream), inside), g), z.dtype)


def binary(z: Array, pos: Array, neg: Array, *, inside: Any) -> Array:
    """Return ``pos softplus(-z) + neg softplus(z)``."""
    z = tf.cast(z, inside)
    size = tf.abs(z)
    far = tf.where(z > 0, neg, pos)
    loss = (pos + neg) * tf.math.log1p(_exp(-size) * _unit(inside)) + xp.where(xp.equal(far, 0), 0.0, far * size)
    return xp.where(xp.equal(pos, 0) & xp.equal(neg, 0), 0.0, loss)


def binary_slopes(z: Array, pos: Array, neg: Array, upstream: Array, *, inside: Any) -> Array:
    """Return ``upstream (neg sigmoid(z) - pos sigmoid(-z))`` in the type of ``z``, 0 where a factor is 0."""
    x, unit = tf.cast(z, inside), _unit(inside)
    positive, e = x > 0, _exp(-tf.abs(x))
    far, near = (tf.where(positive, *sides) * upstream for sides in ((neg, pos), (pos, neg)))
    g = (far - e * (near * unit)) / (1 + e * unit)
    dead = xp.equal(upstream, 0) | xp.equal(pos, 0) & xp.equal(neg, 0)
    return round_once(xp.where(dead, 0.0, tf.where(positive, g, -g)), z.dtype)


def _unit(inside: Any) -> float:
    return 1.0 if inside == tf.float64 else 2.0**-64


def _others(z: Array, top: Array, index: Array, axis: int, compiled: bool) -> Array:
    """Return exp(z - max z) / unit, and 0 at the target."""
    e = _exp(z - top)
    if _scatters(z, axis, compiled):
        return _scatter(e, index, tf.zeros_like(index, z.dtype))
    return e * _one_hot(index, z.shape[axis], axis, z.dtype, on=0.0)


def _exp(x: Array) -> Array:
    """Return exp(x) / unit."""
    unit = _unit(x.dtype)
    return tf.exp(x) if unit == 1 else tf.square(tf.exp(x * 0.5) * unit**-0.5)


def _scaled(e: Array, scale: Array, compiled: bool) -> Array:
    """Return the exponentials times the rows' scale, with their unit; 0 where the scale is 0."""
    unit, inside = _unit(e.dtype), e.dtype
    # The unit joins the scale unless float32 does not hold the product.
    joins = tf.abs(scale) >= 2.0**-62
    first = tf.cast(tf.where(joins, scale * unit, scale), inside)
    g = _times(e, first) if compiled else tf.math.multiply_no_nan(e, first)
    return g if unit == 1 else g * tf.where(joins, tf.ones((), inside), tf.constant(unit, inside))


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
