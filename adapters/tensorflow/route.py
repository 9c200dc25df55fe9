"""TensorFlow underneath: calls checked, eagerly and in graphs; the fused losses, and the composite for the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

from .arrays import as_it_is, cast, compiled_xp, is_on_host, round_once, tensor, xp  # isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf

from ...call import FINITE, Call, bad_targets, infinite, prepare
from ...compute import composite
from ...compute.arrays import Array
from ...compute.xla import Hard, halves_of
from ...errors import name_of
from ...lowering import denominator_of, inside_of, lower, reduce, summed
from . import operation

__all__ = ["as_it_is", "loss", "loss_parts", "make_call", "tensor"]


@as_it_is
def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> Call:
    """Return the checked call; values are looked at where that costs no synchronisation."""
    logits = tensor(logits, "logits")
    if not tf.executing_eagerly():
        if validate:
            logits = _checked_when_run(spec, logits, *arguments)
        call = _with_lengths_checked(prepare(xp, spec, logits, *arguments, check_values=False))
        return dataclasses.replace(call, asserted=validate is None and is_on_host(logits))
    if validate is None:
        validate = is_on_host(logits)
    return prepare(xp, spec, logits, *arguments, check_values=bool(validate))


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


@as_it_is
def loss_parts(call: Call) -> tuple[Array, Array]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    denominator = denominator_of(xp, call, inside_of(xp, call.spec, call.logits.dtype))
    total = dataclasses.replace(call, spec=summed(call.spec), denominator=None)
    return _loss(total, tf.float64), tf.cast(1.0 if denominator is None else denominator, tf.float64)


@as_it_is
def loss(call: Call) -> Array:
    """Return the loss in the logits' type."""
    return _loss(call, call.logits.dtype)


def _loss(call: Call, dtype: Any) -> Array:
    value = _value(call, dtype)
    # Whatever is bad makes a NaN, for which to look costs less. Losses of elements show their own.
    if not call.asserted or (call.spec.reduction == "none" and call.position_axis is None):
        return value
    is_nan = tf.math.is_nan(tf.stop_gradient(tf.reduce_sum(value)))
    with tf.control_dependencies([tf.cond(is_nan, lambda: _explain(call), tf.no_op)]):
        return tf.identity(value)


def _explain(call: Call) -> Any:
    """Assert that nothing is bad of what a graph does not look at. Only numbers are spelled out: XLA has no strings."""
    weights = call.class_weight if isinstance(call.class_weight, tuple) else (call.class_weight,)
    given = [*(("class_weight", x) for x in weights), ("sample_weight", call.sample_weight)]
    given = [(name, tf.cast(x, tf.float64)) for name, x in given if x is not None]
    suspects = [(name, x, FINITE, infinite(x)) for name, x in given]
    targets = tf.cast(call.targets, tf.int64 if call.hard else tf.float64)
    suspects.append(("targets", targets, *bad_targets(xp, call.spec, targets, call.mask, call.shape, call.axis)))
    return tf.group(*(_assert_none(*suspect) for suspect in suspects))


def _assert_none(name: str, values: Array, expected: str, bad: Array) -> Any:
    """Return an assertion that says where the first bad value is, and what it is."""
    values, shape = tf.reshape(values, (-1,)), tf.maximum(tf.shape(values, tf.int64), 1)
    # One more entry, which stands for none.
    first = tf.argmax(tf.concat([tf.cast(tf.reshape(bad, (-1,)), tf.int32), [1]], 0))
    data = [f"`{name_of(name)}` must {expected}; got", tf.gather(tf.concat([values, [0]], 0), first)]
    if shape.shape[0]:
        data += ["at position", first // tf.math.cumprod(shape, exclusive=True, reverse=True) % shape]
    return tf.raw_ops.Assert(condition=tf.equal(first, tf.size(values, tf.int64)), data=data, summarize=8)


def _value(call: Call, dtype: Any) -> Array:
    if call.spec.inputs != "logits":
        return _composite(call, dtype)
    if isinstance(call.denominator, float):
        call = dataclasses.replace(call, denominator=tf.constant(call.denominator, tf.float64))
    return operation.loss(call, dtype, _forward, _backward, _composite)


def _composite(call: Call, dtype: Any) -> Array:
    """Return the loss as operations that every mode of TensorFlow differentiates."""
    inside = inside_of(xp, call.spec, call.logits.dtype)
    c = lower(xp, call, inside)
    rows = composite.rows(xp, call.spec, cast(call.logits, inside), c, xp.eps(call.logits), inside)
    return cast(reduce(xp, call, rows, c.denominator), dtype)


def _forward(call: Call, dtype: Any, compiled: bool) -> tuple[Array, Any]:
    half = halves_of(compiled_xp if compiled else xp, call, inside_of(xp, call.spec, call.logits.dtype))
    losses, saved = half.losses()
    return cast(half.value(losses), dtype), saved


def _backward(call: Call, dtype: Any, saved: Any, upstream: Array, inputs: list[Array], compiled: bool) -> list[Array]:
    of_logits, zero = inputs[0] is call.logits, tf.UnconnectedGradients.ZERO
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        half = halves_of(compiled_xp if compiled else xp, call, inside_of(xp, call.spec, call.logits.dtype))
        if of_logits or isinstance(half, Hard):
            losses = half.linearised_at(saved)
            tape.watch(losses)
            value = cast(half.value(losses), dtype)
        else:
            value = _composite(call, dtype)
    if of_logits:
        of_losses = tape.gradient(value, losses, upstream, unconnected_gradients=zero)
        return [round_once(half.slopes(of_losses, saved), call.logits.dtype)]
    found = tape.gradient(value, inputs, upstream, unconnected_gradients=zero)
    return [tf.convert_to_tensor(x) for x in found]  # of a gather they are slices
