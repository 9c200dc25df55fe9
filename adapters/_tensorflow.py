"""TensorFlow underneath: calls checked, eagerly and in graphs; the fused losses, and the composite for the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._tensorflow_arrays import as_it_is, cast, tensor, wide_sum, xp  # isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf

from .. import composite
from .._arrays import Array
from ..call import Call, prepare
from ..lowering import INF, SigmoidCoefficients, SoftmaxCoefficients, denominator_of, lower, reduce, summed
from . import _tensorflow_fused as fused
from . import _tensorflow_operation as operation

__all__ = ["as_it_is", "loss", "loss_parts", "make_call", "tensor"]


@as_it_is
def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> Call:
    """Return the checked call; values are looked at where that costs no synchronisation."""
    logits = tensor(logits, "logits")
    if not tf.executing_eagerly():
        if validate:
            logits = _checked_when_run(spec, logits, *arguments)
        return _with_lengths_checked(prepare(xp, spec, logits, *arguments, check_values=False))
    if validate is None:
        validate = "CPU" in logits.device or not logits.device
    return prepare(xp, spec, logits, *arguments, check_values=validate)


def _checked_when_run(spec: Any, logits: Array, *arguments: Any) -> Array:
    """Return the logits, which an error takes the place of where the graph meets values that `prepare` refuses."""
    flat = tf.nest.flatten(arguments)

    def check(logits: Array, *values: Any) -> Array:
        given = iter(values)
        filled = [x if x is None else next(given) for x in flat]
        prepare(xp, spec, logits, *tf.nest.pack_sequence_as(arguments, filled), check_values=True)
        return logits

    present = [x for x in flat if x is not None]
    with tf.control_dependencies([tf.py_function(check, [logits, *present], logits.dtype)]):
        return tf.identity(logits)


def _with_lengths_checked(call: Call) -> Call:
    """Return the call; where lengths are known when the graph runs only, a 1 must not broadcast in silence."""
    full, positions = xp.shape(call.logits), call.loss_shape(xp)
    checked = {}
    for name in ("targets", "sample_weight", "mask"):
        x = getattr(call, name)
        if x is not None and None in (*x.shape, *call.logits.shape):
            lengths = full if len(x.shape) == len(full) else positions[: len(x.shape)]
            expected = tf.convert_to_tensor(lengths, tf.int64)
            message = f"`{name}` must have the lengths of the logits"
            with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x, tf.int64), expected, message)]):
                checked[name] = tf.reshape(x, expected)  # XLA leaves assertions out; this it cannot
    return dataclasses.replace(call, **checked)


def _inside(call: Call) -> Any:
    """Return the type that is computed in."""
    exact = call.spec.precision == "exact" or call.logits.dtype == tf.float64
    return tf.float64 if exact else tf.float32


@as_it_is
def loss_parts(call: Call) -> tuple[Array, Array]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    denominator = denominator_of(xp, call, _inside(call), [call])
    total = dataclasses.replace(call, spec=summed(call.spec), denominator=None)
    return _loss(total, tf.float64), tf.cast(1.0 if denominator is None else denominator, tf.float64)


@as_it_is
def loss(call: Call) -> Array:
    """Return the loss in the logits' type."""
    return _loss(call, call.logits.dtype)


def _loss(call: Call, dtype: Any) -> Array:
    if call.spec.inputs != "logits":
        return _composite(call, dtype)
    if isinstance(call.denominator, float):
        call = dataclasses.replace(call, denominator=tf.constant(call.denominator, tf.float64))
    return operation.loss(call, dtype, _forward, _backward, _composite)


def _composite(call: Call, dtype: Any) -> Array:
    """Return the loss as operations that every mode of TensorFlow differentiates."""
    inside = _inside(call)
    c = lower(xp, call, inside)
    rows = composite.rows(xp, call.spec, cast(call.logits, inside), c, xp.eps(call.logits), inside)
    return cast(reduce(xp, call, rows, c.denominator), dtype)


def _forward(call: Call, dtype: Any, compiled: bool) -> tuple[Array, Any]:
    c: Any = lower(xp, call, _inside(call))
    options = {"inside": _inside(call)}
    if isinstance(c, SigmoidCoefficients):
        losses, *saved = (fused.binary(call.logits, *_dense(call, c), **options),)
    elif _is_hard(c):
        losses, *saved = fused.hard(call.logits, c.index, axis=c.axis, compiled=compiled, **options)
        saved = [losses, *saved[:3]]
    else:
        losses, *saved = fused.dense(call.logits, *_dense(call, c), axis=c.axis, **options)
    return _value(call, c, losses, dtype), tuple(saved)


def _backward(call: Call, dtype: Any, saved: Any, upstream: Array, inputs: list[Array], compiled: bool) -> list[Array]:
    of_logits = inputs[0] is call.logits
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        c: Any = lower(xp, call, _inside(call))
        if _is_hard(c):
            losses = saved[0]
        elif of_logits:  # the value is linear in the losses
            losses = tf.zeros_like(saved[0] if saved else call.logits, tf.float64 if saved else _inside(call))
        if of_logits:
            tape.watch(losses)
        value = _value(call, c, losses, dtype) if of_logits or _is_hard(c) else _composite(call, dtype)
    zero = tf.UnconnectedGradients.ZERO
    if not of_logits:
        found = tape.gradient(value, inputs, upstream, unconnected_gradients=zero)
        return [tf.convert_to_tensor(x) for x in found]  # of a gather they are slices
    of_losses = tape.gradient(value, losses, upstream, unconnected_gradients=zero)
    if isinstance(c, SigmoidCoefficients):
        pos, neg = _dense(call, c)
        return [fused.binary_slopes(call.logits, pos, neg, of_losses, inside=_inside(call))]
    options = {"axis": c.axis, "inside": _inside(call), "compiled": compiled}
    if _is_hard(c):
        return [fused.hard_slopes(call.logits, c.index, of_losses, *saved[1:], **options)]
    (a,) = _dense(call, c)
    return [fused.dense_slopes(call.logits, a, of_losses, *saved, **options)]


def _is_hard(c: Any) -> bool:
    return isinstance(c, SoftmaxCoefficients) and c.index is not None and c.beta is None


def _dense(call: Call, c: Any) -> list[Array]:
    """Return the coefficients of each element: of a softmax one, of a binary loss two."""
    inside = _inside(call)
    if isinstance(c, SigmoidCoefficients):
        return [tf.cast(composite.counted(xp, c, x), inside) for x in (c.pos, c.neg)]
    alpha, beta = (None if x is None else tf.cast(composite.counted(xp, c, x), inside) for x in (c.alpha, c.beta))
    column, row = (None if x is None else tf.cast(x, inside) for x in (c.column, c.row))
    if c.targets is None:
        a = xp.where(xp.equal(xp.positions(call.num_classes, c.axis, call.logits), c.index), alpha, 0.0)
    else:
        a = alpha * (c.targets if column is None else c.targets * column)
    return [a if beta is None else a + (beta if row is None else beta * row)]


def _value(call: Call, c: Any, losses: Array, dtype: Any) -> Array:
    """Return the loss of rows or, of a binary loss, elements; those of index targets are yet to be weighted."""
    if _is_hard(c):
        # 0 where the weight is 0, and no infinite slope comes through there.
        alpha = composite.counted(xp, c, c.alpha)
        finite = ~xp.equal(alpha, 0) | (losses < INF)
        losses = tf.math.multiply_no_nan(xp.where(finite, losses, 0.0), alpha)
    elif isinstance(c, SigmoidCoefficients) and call.spec.average_outputs:
        losses = xp.sum(losses, len(call.shape) - 1)
    elif isinstance(c, SigmoidCoefficients) and call.spec.reduction != "none" and call.shape and call.shape[-1]:
        losses = wide_sum(losses, len(call.shape) - 1)  # of an array XLA would make one in float64 first
    return cast(reduce(xp, call, losses, c.denominator), dtype)
