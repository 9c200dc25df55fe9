"""JAX: the loss, which ``jit``, ``grad``, ``jvp``, ``vmap`` and ``shard_map`` take; drop-ins for optax's.

It can be differentiated any number of times, in forward mode and in reverse. Inside, float64 is used as the definition
says, whatever ``jax_enable_x64`` does. In a traced function values are not looked at: a bad row is NaN there, and
``validate=True`` buys the error. What is no tracer is looked at while a function is traced.
"""

from __future__ import annotations

from typing import Any

from . import route  # isort: skip  (first: it words the error of a missing JAX)

import jax
import jax.numpy as jnp
import numpy as np

from ...conventions import optax as conventions
from ...conventions.differences import differing
from ...errors import refuse
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = [
    "loss",
    "loss_parts",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
ArrayLike = Any
Axes = int | tuple[int, ...] | None


def loss(
    spec: Spec,
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    class_weight: Any = None,
    mask: ArrayLike | None = None,
    denominator: ArrayLike | None = None,
    validate: bool | None = None,
) -> jax.Array:
    """Return the weighted cross-entropy that ``spec`` describes, differentiable in whatever is differentiated.

    Parameters are those of `classweight.adapters.numpy.loss`, as arrays or what NumPy makes arrays of. In addition:

    Parameters
    ----------
    class_weight : Array, optional
        May be differentiated, as may ``sample_weight`` and targets that are distributions.
    validate : bool, optional
        Look at the values. Default: on the CPU, where they are known while a function is traced. True looks when it
        runs, on the host, and raises ``jax.errors.JaxRuntimeError`` with the same sentence.

    Returns
    -------
    Array of the logits' dtype
        In nats; of the position shape for ``reduction="none"``, else 0-d.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import classweight as cw
    >>> import classweight.adapters.jax as cwj
    >>> spec = cw.SoftmaxCrossEntropy(class_weight=[1, 2])
    >>> logits = jnp.array([[1.0, 2], [1, 3], [1, 3]])
    >>> print(jax.grad(lambda z: cwj.loss(spec, z, jnp.array([0, 1, 1])))(logits).round(4))
    [[-0.1462  0.1462]
     [ 0.0477 -0.0477]
     [ 0.0477 -0.0477]]
    """
    return route.loss(route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator))


def loss_parts(
    spec: Spec,
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    class_weight: Any = None,
    mask: ArrayLike | None = None,
    validate: bool | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64.

    Both are differentiable, and the parts of several micro-batches or shards add up to the whole batch's. Parameters
    are those of `loss`.
    """
    return route.loss_parts(route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask, None))


@differing("optax", "softmax_cross_entropy")
def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> jax.Array:
    """Drop in for ``optax.softmax_cross_entropy``: its arguments, value, gradient, dtype, shape and refusals.

    The differences, each for the better, are those of ``classweight.conventions.DIFFERENCES``.
    """
    logits, labels = _logits(logits), jnp.asarray(labels)
    shape, axes = _joint_shape(logits, labels), _axes(axis, logits.ndim)
    if any(shape[i] != logits.shape[i] for i in axes):
        refuse("labels", f"have one entry or as many as the logits along axis {axis}", labels.shape)
    kept = _kept(where, logits.ndim, shape, axes)
    labels = jnp.broadcast_to(labels, shape)
    labels = labels if kept is None else jnp.where(kept, labels, 0)
    logits = jnp.broadcast_to(logits.astype(jnp.result_type(logits, labels)), shape)
    return _rows(_as_one(logits, axes), _as_one(labels, axes), axes, _as_one(kept, axes))


@differing("optax", "safe_softmax_cross_entropy")
def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Drop in for ``optax.safe_softmax_cross_entropy``; here `softmax_cross_entropy` is as safe."""
    return softmax_cross_entropy(logits, labels)


@differing("optax", "softmax_cross_entropy_with_integer_labels")
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, labels: ArrayLike, axis: int | tuple[int, ...] = -1, where: ArrayLike | None = None
) -> jax.Array:
    """Drop in for ``optax.softmax_cross_entropy_with_integer_labels``."""
    logits, labels = _logits(logits), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        refuse("labels", "be integers", labels.dtype, error=TypeError)
    if axis is None:
        refuse("axis", "be an int or a tuple of ints", axis)
    axes = _axes(axis, logits.ndim)
    kept = _as_one(_kept(where, logits.ndim, logits.shape, axes), axes)
    logits, axis = _as_one(logits, axes), axes[0] if len(axes) == 1 else -1
    if labels.ndim != logits.ndim - 1:
        refuse("labels", f"have {logits.ndim - 1} axes", f"shape {labels.shape}")
    shape = _joint_shape(logits, jnp.expand_dims(labels, axis))
    labels = jnp.broadcast_to(labels, tuple(np.delete(shape, axis)))
    return _rows(jnp.broadcast_to(logits, shape), labels, axes, kept)


@differing("optax", "sigmoid_binary_cross_entropy")
def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Drop in for ``optax.sigmoid_binary_cross_entropy``."""
    logits, labels = _logits(logits), jnp.asarray(labels)
    shape = _joint_shape(logits, labels)
    labels = jnp.broadcast_to(labels.astype(logits.dtype), shape)
    return loss(conventions.sigmoid_binary_cross_entropy(), jnp.broadcast_to(logits, shape), labels)


def _logits(logits: ArrayLike) -> jax.Array:
    logits = jnp.asarray(logits)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        refuse("logits", "be floating point", logits.dtype, error=TypeError)
    return logits


def _joint_shape(logits: jax.Array, labels: jax.Array) -> tuple[int, ...]:
    try:
        return tuple(jnp.broadcast_shapes(logits.shape, labels.shape))
    except ValueError:
        refuse("labels", f"broadcast against the logits, of shape {logits.shape}", f"shape {labels.shape}")


def _axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    """Return the axes of the classes, counted from the end."""
    axes = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    found = tuple(i % ndim - ndim for i in axes if -ndim <= i < ndim)
    if not found or len(set(found)) != len(axes):
        refuse("axis", f"name axes of the logits, which have {ndim}", axis)
    return found


def _kept(where: ArrayLike | None, ndim: int, shape: tuple[int, ...], axes: tuple[int, ...]) -> jax.Array | None:
    """Return which entries of the logits are kept."""
    if where is None:
        return None
    where = jnp.asarray(where).astype(bool)
    try:
        return jnp.broadcast_to(where if where.ndim == ndim else jnp.expand_dims(where, axes), shape)
    except ValueError:
        refuse("where", f"broadcast to the logits' shape {shape}, or to that without axes {axes}", where.shape)


def _as_one(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the array with these axes as one, the last; a single one stays where it is."""
    if x is None or len(axes) == 1:
        return x
    x = jnp.moveaxis(x, axes, range(-len(axes), 0))
    return x.reshape(*x.shape[: -len(axes)], -1)


def _rows(logits: jax.Array, targets: jax.Array, axes: tuple[int, ...], kept: jax.Array | None) -> jax.Array:
    """Return the losses of the rows; of entries that are not kept, the probability is 0."""
    axis, mask = axes[0] if len(axes) == 1 else -1, None
    if kept is not None:
        kept = jnp.broadcast_to(kept, logits.shape)
        logits, mask = jnp.where(kept, logits, -jnp.inf), kept.any(axis)
    return loss(conventions.softmax_cross_entropy(axis), logits, targets, mask=mask)
