"""TensorFlow underneath: calls checked, eagerly and in graphs; the fused loss, and the composite for the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._tensorflow_arrays import as_it_is, cast, tensor, xp  # isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf

from .. import composite
from .._arrays import Array
from ..call import Call, prepare
from ..lowering import INF, SoftmaxCoefficients, lower, reduce, undivided
from ..spec import SoftmaxCrossEntropy
from . import _tensorflow_eager as eager
from . import _tensorflow_fused as fused

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
    c = lower(xp, call, _inside(call))
    denominator = 1.0 if c.denominator is None else c.denominator
    return tf.reduce_sum(tf.cast(_rows(call, undivided(c)), tf.float64)), tf.cast(denominator, tf.float64)


@as_it_is
def loss(call: Call) -> Array:
    """Return the loss in the logits' type."""
    if not (_can_fuse(call) and tf.executing_eagerly()):
        return _composite(call)
    if isinstance(call.denominator, float):
        call = dataclasses.replace(call, denominator=tf.constant(call.denominator, tf.float64))
    return eager.loss(call, _forward, _backward, _composite)


def _can_fuse(call: Call) -> bool:
    spec = call.spec
    softmax = isinstance(spec, SoftmaxCrossEntropy) and spec.inputs == "logits"
    return softmax and call.hard and not spec.label_smoothing


def _composite(call: Call) -> Array:
    """Return the loss as operations that every mode of TensorFlow differentiates."""
    c = lower(xp, call, _inside(call))
    return _value(call, c, _rows(call, c))


def _value(call: Call, c: Any, rows: Array) -> Array:
    return cast(reduce(xp, call, rows, c.denominator), call.logits.dtype)


def _rows(call: Call, c: Any) -> Array:
    inside = _inside(call)
    if _can_fuse(call) and not tf.executing_eagerly() and not fused.is_forward_mode([call.logits]):
        return _weighted(c, fused.losses(call.logits, c.index, c.axis, inside))
    return composite.rows(xp, call.spec, cast(call.logits, inside), c, xp.eps(call.logits), inside)


def _weighted(c: SoftmaxCoefficients, losses: Array) -> Array:
    """Return the weighted losses of rows; 0 where the weight is 0, and no infinite slope comes through there."""
    alpha = composite.counted(xp, c, c.alpha)
    finite = ~xp.equal(alpha, 0) | (losses < INF)
    return tf.math.multiply_no_nan(xp.where(finite, losses, 0.0), alpha)


def _forward(call: Call, compiled: bool) -> tuple[Array, Any]:
    c: Any = lower(xp, call, _inside(call))
    losses, *saved = fused.hard(call.logits, c.index, axis=c.axis, inside=_inside(call), compiled=compiled)
    return _value(call, c, _weighted(c, losses)), (losses, *saved[:3])


def _backward(call: Call, saved: Any, upstream: Array, names: list[str], compiled: bool) -> list[Array]:
    losses, *statistics = saved
    weights = [getattr(call, name) for name in names if name != "logits"]
    with tf.GradientTape() as tape:
        tape.watch([losses, *weights])
        c: Any = lower(xp, call, _inside(call))
        value = _value(call, c, _weighted(c, losses))
    zero = tf.UnconnectedGradients.ZERO
    of_rows, *found = tape.gradient(value, [losses, *weights], upstream, unconnected_gradients=zero)
    found = [tf.convert_to_tensor(x) for x in found]  # of a gather they are slices
    if "logits" in names:
        options = {"axis": c.axis, "inside": _inside(call), "compiled": compiled}
        found.insert(0, fused.slopes(call.logits, c.index, of_rows, *statistics, **options))
    return found
