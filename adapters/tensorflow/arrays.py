"""TensorFlow beneath everything else: the array functions, tensors of what a call is given, rounding."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from ...errors import missing_framework, refuse

try:
    import tensorflow as tf
except ImportError as cause:
    missing_framework("tensorflow", "tensorflow", cause)

from ...compute.arrays import Array, Kind, class_shape, wide_weights
from ...compute.xla import Compiled

HALF = (tf.float16, tf.bfloat16)
VECTOR = 16  # numbers, the most that a CPU's instruction takes; a rest of fewer gets other last bits, of another one
MANY = 64  # classes, from which on a scatter costs less than a product with one-hot rows
VERY_MANY = 1 << 17  # classes, whose float64 copies are worth their memory
Function = TypeVar("Function", bound=Callable[..., Any])


def as_it_is(function: Function) -> Function:
    """Keep AutoGraph's hands off: nothing here branches on a tensor."""
    return tf.autograph.experimental.do_not_convert(function)  # type: ignore[no-any-return]


def is_on_host(x: Array) -> bool:
    """Whether a tensor is, or will be, computed with on the CPU."""
    if x.device:
        return "CPU" in x.device
    # What a graph leaves open goes to an accelerator if there is one.
    return tf.executing_eagerly() or all(device.device_type == "CPU" for device in tf.config.get_visible_devices())


def _in_whole_vectors(function: Any) -> Any:
    """Return the function of elements, which has the same bits wherever an element is."""

    def of(x: Array) -> Array:
        size = x.shape.num_elements()
        if (size is not None and size % VECTOR == 0) or not is_on_host(x):
            return function(x)
        more = tf.concat([tf.reshape(x, (-1,)), tf.ones(VECTOR, x.dtype)], 0)
        return tf.reshape(function(more)[:-VECTOR], tf.shape(x))

    return staticmethod(of)


class TensorFlowArrays:
    """The array functions of `classweight._arrays.Arrays` on tensors."""

    wide, float32, int64 = tf.float64, tf.float32, tf.int64
    flushes, recomputes_exp = True, False
    exp, expm1, log, log1p = map(_in_whole_vectors, (tf.math.exp, tf.math.expm1, tf.math.log, tf.math.log1p))
    reshape, expand_dims = map(staticmethod, (tf.reshape, tf.expand_dims))
    astype, take, detach = map(staticmethod, (tf.cast, tf.gather, tf.stop_gradient))

    def kind(self, x: Array) -> Kind:
        if x.dtype.is_floating:
            return "f"
        return "i" if x.dtype.is_integer else "b" if x.dtype.is_bool else "other"

    def asarray(self, x: Any, like: Array, name: str) -> Array:
        if not tf.is_tensor(x):  # a list of floats is float64, not the float32 that TensorFlow makes of it
            try:
                x = np.asarray(x)
            except (TypeError, ValueError):
                refuse(name, "be a tensor or numbers in a regular shape", repr(x), error=TypeError)
        return tensor(x, name)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.asarray((tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x).numpy())

    def shape(self, x: Array) -> tuple[Any, ...]:
        static = self.static_shape(x)
        if None not in static:
            return static
        dynamic = tf.shape(x, out_type=tf.int64)
        return tuple(dynamic[i] if n is None else n for i, n in enumerate(static))

    def static_shape(self, x: Array) -> tuple[int | None, ...]:
        return tuple(x.shape)

    def weights(self, spec: Any, num_classes: int, like: Array) -> Any:
        if tf.executing_eagerly():
            return _weights(spec, num_classes, like.device)
        return _constants(spec, num_classes)

    def ones(self, shape: tuple[Any, ...], like: Array) -> Array:
        return tf.ones(shape, self.wide)

    def broadcast_to(self, x: Array, like: Array) -> Array:
        # Not a product with ones: a graph makes a tiling of that, which ends the process where it is empty.
        return tf.broadcast_to(x, tf.shape(like))

    def equal(self, x: Array, y: Any) -> Array:
        return tf.equal(x, y if tf.is_tensor(y) else tf.constant(y, x.dtype))

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        if not tf.is_tensor(x):
            x = tf.constant(x, y.dtype)
        elif not tf.is_tensor(y):
            y = tf.constant(y, x.dtype)
        return tf.where(condition, x, y)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        if axis is None:
            return tf.reduce_sum(x)
        # TensorFlow adds up in the terms' own type, one after another: equal terms all round to the same side.
        return tf.cast(self.wide_sum(x, axis), x.dtype)

    def any(self, x: Array, axis: int) -> Array:
        return tf.reduce_any(x, axis, keepdims=True)

    def argmax(self, x: Array, axis: int) -> Array:
        return tf.expand_dims(tf.argmax(x, axis), axis)

    def positions(self, n: int, axis: int, like: Array) -> Array:
        return tf.reshape(tf.range(n, dtype=tf.int64), class_shape(n, axis, len(like.shape)))

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        # A sum with one term, not a gather along an axis: that one transposes, and its gradient scatters.
        chosen = self.where(self.equal(self.positions(x.shape[axis], axis, x), index), x, 0.0)
        return tf.reduce_sum(chosen, axis, keepdims=True)

    def eps(self, x: Array) -> float:
        return 2.0**-7 if x.dtype == tf.bfloat16 else float(np.finfo(x.dtype.as_numpy_dtype).eps)

    def max(self, x: Array, axis: int) -> Array:
        return tf.reduce_max(x, axis, keepdims=True)

    def sum_in_type(self, x: Array, axis: int) -> Array:
        return tf.reduce_sum(x, axis, keepdims=True)

    def wide_sum(self, x: Array, axis: int) -> Array:
        return tf.reduce_sum(tf.cast(x, tf.float64), axis, keepdims=True)

    def entries(self, x: Array, index: Array, axis: int) -> Array:
        last = len(x.shape) - 1
        return tf.gather(x, index, axis=last, batch_dims=last) if axis == last else self.pick(x, index, axis)

    def with_entries(self, x: Array, index: Array, values: Array | None, axis: int) -> Array:
        if not self.recomputes_exp and axis == len(x.shape) - 1 and x.shape[axis] > MANY:
            return _scatter(x, index, tf.zeros_like(index, x.dtype) if values is None else values)
        if values is None:
            return x * _one_hot(index, x.shape[axis], axis, x.dtype, on=0.0)
        return x + values * _one_hot(index, x.shape[axis], axis, x.dtype)

    def isnan(self, x: Array) -> Array:
        return tf.math.is_nan(x)

    def weighted(self, losses: Array, alpha: Array) -> Array:
        # A weight of 0 has a gradient, which is the loss if that is finite.
        finite = ~tf.equal(alpha, 0) | (losses < np.inf)
        return tf.math.multiply_no_nan(self.where(finite, losses, 0.0), alpha)

    def times(self, x: Array, rows: Array) -> Array:
        return tf.math.multiply_no_nan(x, rows)


class CompiledArrays(Compiled, TensorFlowArrays):
    """Those of what XLA compiles."""

    exp, expm1, log, log1p = map(staticmethod, (tf.math.exp, tf.math.expm1, tf.math.log, tf.math.log1p))

    def wide_sum(self, x: Array, axis: int) -> Array:
        """Return the sum in float64; along the last axis a product with ones, of which XLA makes a vector loop."""
        if axis != len(x.shape) - 1:
            return super().wide_sum(x, axis)
        return tf.expand_dims(tf.tensordot(tf.cast(x, tf.float64), tf.ones(x.shape[axis], tf.float64), 1), axis)

    def sum_in_type(self, x: Array, axis: int) -> Array:
        # XLA adds up in a few parts; of very many equal terms too many would round to the same side.
        return self.sum(x, axis) if x.shape[axis] > VERY_MANY else super().sum_in_type(x, axis)


xp, compiled_xp = TensorFlowArrays(), CompiledArrays()


def tensor(x: Any, name: str, dtype_hint: Any = None) -> Array:
    """Return a native call's argument as a tensor of numbers, of known rank."""
    came = type(x).__name__
    try:
        x = tf.convert_to_tensor(x, dtype_hint=dtype_hint)
    except (TypeError, ValueError):
        x = None
    if x is None or x.dtype in (tf.string, tf.resource, tf.variant):
        refuse(name, "be a dense tensor or numbers in a regular shape", came, error=TypeError)
    if x.shape.rank is None:
        refuse(name, "have a number of axes that is known in advance", "an unknown shape")
    return x


def _scatter(x: Array, index: Array, values: Array) -> Array:
    """Return ``x``, written over where that is safe, with ``values`` at ``index`` along the last axis."""
    flat, index = tf.reshape(x, (-1, x.shape[-1])), tf.reshape(index, (-1,))
    places = tf.stack([tf.range(tf.size(index, tf.int64)), index], 1)
    return tf.reshape(tf.tensor_scatter_nd_update(flat, places, tf.reshape(values, (-1,))), tf.shape(x))


def _one_hot(index: Array, num_classes: int, axis: int, dtype: Any, on: float = 1.0) -> Array:
    return tf.one_hot(tf.squeeze(index, axis), num_classes, on, 1 - on, axis, dtype)


def _constants(spec: Any, num_classes: int) -> Any:
    return wide_weights(spec, num_classes, lambda values: tf.constant(values, tf.float64))


@lru_cache(maxsize=64)
def _weights(spec: Any, num_classes: int, device: str) -> Any:
    with tf.device(device):
        return _constants(spec, num_classes)


def cast(x: Array, dtype: Any) -> Array:
    """Return ``x`` as ``dtype``; between float64 and a half type the value, or the gradient, is rounded once."""
    if tf.float64 not in (x.dtype, dtype) or not {x.dtype, dtype} & set(HALF):
        return tf.cast(x, dtype)

    # Its gradient is itself a cast of this kind, so a tape may differentiate it any number of times.
    def rounded(x: Array) -> tuple[Array, Any]:
        return round_once(x, dtype), lambda upstream: cast(upstream, x.dtype)

    return tf.custom_gradient(rounded)(x)


def round_once(x: Array, dtype: Any) -> Array:
    """Return float64 as ``dtype``, rounded once: to a half type by way of a float32 rounded to odd."""
    if x.dtype != tf.float64 or dtype not in HALF:
        return tf.cast(x, dtype)
    near = tf.cast(x, tf.float32)
    back, bits = tf.cast(near, tf.float64), tf.bitcast(near, tf.int32)
    step = tf.where(tf.abs(back) < tf.abs(x), 1, -1)
    odd = tf.where(tf.not_equal(back, x) & tf.equal(bits & 1, 0) & ~tf.math.is_nan(x), bits + step, bits)
    return tf.cast(tf.bitcast(odd, tf.float32), dtype)
