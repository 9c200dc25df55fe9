"""The fused loss outside a graph: one recorded operation a call, compiled by XLA once its shapes have come again.

The gradient to logits and weights is made in closed form. What else may be asked for, a gradient of the gradient, a
vectorised map of it or a tangent, comes from the composite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from itertools import compress
from typing import Any

from . import _tensorflow_fused as fused  # isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf
from tensorflow.python.eager import record  # nothing public says what a tape watches

from .._arrays import Array
from ..call import Call

PATIENCE = 3  # the call of the same shapes that is compiled, which takes about a second
SMALL = 1 << 18  # logits, below which a second launch costs more than a gradient for nobody

_NAMES = ("logits", "targets", "sample_weight", "class_weight", "mask", "denominator")
Arrays = tuple[Array, ...]
Forward = Callable[[Call, bool], tuple[Array, Arrays]]
Backward = Callable[[Call, Arrays, Array, list[str], bool], list[Array]]


class _Kernel:
    """The two halves of a loss for one spec and one set of shapes and types, given as functions of arrays."""

    compiled = 0

    def __init__(self, template: Call, names: tuple[str, ...], watched: list[str], f: Forward, b: Backward) -> None:
        def call(arrays: Arrays) -> Call:
            return dataclasses.replace(template, **dict(zip(names, arrays, strict=True)))

        def forward(*arrays: Array, compiled: bool = False) -> tuple[Array, Any]:
            return f(call(arrays), compiled)

        def backward(upstream: Array, saved: Arrays, *arrays: Array, compiled: bool = False) -> list[Array]:
            return b(call(arrays), saved, upstream, watched, compiled)

        self.calls, self.watched = 0, watched
        self.small = template.spec.reduction != "none" and bool(watched)
        self.forward: Callable[..., Any] = forward
        self.backward: Callable[..., Any] = backward

    def count(self, arrays: list[Array]) -> None:
        """Compile the halves if the call has come often enough."""
        self.calls += 1
        if self.calls == PATIENCE and _Kernel.compiled < fused.MOST and not tf.config.functions_run_eagerly():
            _Kernel.compiled += 1
            if self.small and arrays[0].shape.num_elements() <= SMALL:
                self._compile_as_one(*arrays)
            else:
                self._compile_as_two(*arrays)

    def _compile_as_two(self, *arrays: Array) -> None:
        forward, backward = self.forward, self.backward
        self.forward = _compiled(lambda *arrays: forward(*arrays, compiled=True), *arrays)
        if not self.watched:
            return
        value, saved = self.forward(*arrays)
        self.backward = _compiled(lambda *given: backward(*given, compiled=True), value, saved, *arrays)

    def _compile_as_one(self, *arrays: Array) -> None:
        forward, backward = self.forward, self.backward

        def step(upstream: Array, *arrays: Array) -> tuple[Array, list[Array]]:
            value, saved = forward(*arrays, compiled=True)
            return value, backward(upstream, saved, *arrays, compiled=True)

        one = tf.ones((), arrays[0].dtype)
        both = _compiled(step, one, *arrays)

        def again(upstream: Array, saved: list[Array], *arrays: Array) -> list[Array]:
            return saved if upstream.numpy() == 1 else both(upstream, *arrays)[1]

        self.forward, self.backward = lambda *arrays: both(one, *arrays), again


def _compiled(function: Any, *arrays: Any) -> Any:
    return tf.function(function, autograph=False, jit_compile=True).get_concrete_function(*arrays)


@lru_cache(maxsize=256)
def _kernel(about: Any, names: tuple[str, ...], types: Any, watched: tuple[str, ...], f: Any, b: Any) -> _Kernel:
    spec, checked, shape, axis = about
    nothing: Any = dict.fromkeys(_NAMES)
    return _Kernel(Call(spec, **nothing, checked=checked, shape=shape, axis=axis), names, list(watched), f, b)


def loss(call: Call, forward: Forward, backward: Backward, composite: Callable[[Call], Array]) -> Array:
    """Return the loss.

    ``forward(call, compiled)`` returns the value and what the gradient needs, ``backward(call, saved, upstream, names,
    compiled)`` the gradient to these fields of the call, ``composite(call)`` the value as differentiable operations.
    """
    names = tuple(name for name in _NAMES if getattr(call, name) is not None)
    arrays = [getattr(call, name) for name in names]
    if fused.is_forward_mode(arrays):
        return composite(call)
    is_watched = [record.should_record_backprop([x]) for x in arrays]
    watched = tuple(compress(names, is_watched))
    types = tuple((x.dtype, *x.shape) for x in arrays)
    kernel = _kernel((call.spec, call.checked, call.shape, call.axis), names, types, watched, forward, backward)
    # What a tape watches would be recorded a second time.
    constants = [tf.stop_gradient(x) if found else x for x, found in zip(arrays, is_watched, strict=True)]
    kernel.count(constants)
    value, saved = kernel.forward(*constants)

    def again(*inputs: Array) -> Array:
        return composite(dataclasses.replace(call, **dict(zip(watched, inputs, strict=True))))

    def first(*inputs: Array) -> tuple[Array, Any]:
        def gradient(upstream: Array) -> Any:
            if not tf.executing_eagerly():  # of many at once, in a vectorised map
                return fused.gradients(again, inputs, upstream)
            if record.should_record_backprop([upstream, *inputs]):
                return tf.custom_gradient(second)(upstream, *inputs)
            return kernel.backward(upstream, saved, *constants)

        return value, gradient

    def second(upstream: Array, *inputs: Array) -> tuple[list[Array], Any]:
        def gradient(*directions: Array) -> Any:
            return fused.second_order(again, inputs, upstream, directions)

        return kernel.backward(tf.stop_gradient(upstream), saved, *constants), gradient

    return tf.custom_gradient(first)(*compress(arrays, is_watched)) if watched else value
