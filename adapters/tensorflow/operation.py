"""A loss as one recorded operation a call, compiled by XLA: in a graph if it is large, outside once it has come again.

The gradient is made in closed form. What else may be asked for, a gradient of the gradient, a vectorised map of it or a
tangent, comes from the composite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import compress
from typing import Any

from . import arrays as _  # noqa: F401  isort: skip  (first: it words a missing TensorFlow)

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record  # nothing public says what has a tangent, what a tape

from ...call import Call
from ...compute.arrays import Array

PATIENCE = 3  # eager calls of the same shapes until they are compiled, which takes about a second and 5 MiB for good
SEVERAL = 4  # compiled calls, for each of which patience is that long again: shapes that keep changing are not compiled
SMALL = 1 << 18  # logits, below which a second launch costs more than a gradient for nobody
LARGE = 1 << 16  # logits, from which on a graph's call is compiled
MOST = 64  # calls that are compiled; XLA keeps them for good

_NAMES = ("logits", "targets", "sample_weight", "class_weight", "mask", "denominator")
Arrays = tuple[Array, ...]
Composite = Callable[[Call, Any], Array]
Forward = Callable[[Call, Any, bool], tuple[Array, Arrays]]
Backward = Callable[[Call, Any, Arrays, Array, list[Array], bool], list[Array]]


class _Kernel:
    """The two halves of a loss for one spec and one set of shapes and types, given as functions of arrays."""

    compiled = 0

    def __init__(self, template: Call, dtype: Any, watched: tuple[int, ...], f: Forward, b: Backward) -> None:
        def forward(*arrays: Array, compiled: bool = False) -> tuple[Array, Any]:
            return f(_filled(template, arrays), dtype, compiled)

        def backward(
            part: Sequence[int], upstream: Array, saved: Arrays, *arrays: Array, compiled: bool = False
        ) -> Any:
            call = _filled(template, arrays)
            return b(call, dtype, saved, upstream, [arrays[i] for i in part], compiled)

        self.calls, self.is_compiled, self.dtype = 0, False, dtype
        self.small = template.spec.reduction != "none" and bool(watched)
        self.forward: Callable[..., Any] = forward
        # The logits' for itself: a graph leaves out what nobody asks for.
        parts: Any = [i for i in watched if not i], [i for i in watched if i]
        self.parts: list[Callable[..., Any]] = [partial(backward, part) for part in parts if part]

    def backward(self, *given: Any) -> list[Array]:
        """Return the gradients to what is watched."""
        return [x for part in self.parts for x in part(*given)]

    def count(self, arrays: list[Array]) -> None:
        """Compile the halves if the call is large or has come often enough."""
        self.calls += 1
        eagerly, size = tf.executing_eagerly(), arrays[0].shape.num_elements()
        if eagerly:
            due = self.calls >= PATIENCE * (1 + _Kernel.compiled // SEVERAL)
        else:
            due = self.calls == 1 and size is not None and size >= LARGE
        if due and not self.is_compiled and _Kernel.compiled < MOST and not tf.config.functions_run_eagerly():
            self.is_compiled = True
            _Kernel.compiled += 1
            if eagerly and self.small and size <= SMALL:
                self._compile_as_one(*arrays)
            else:
                self._compile_as_two(*arrays)

    def _compile_as_two(self, *arrays: Array) -> None:
        forward = _compiled(self.forward, *arrays)
        self.forward, made = forward, forward.structured_outputs
        self.parts = [_compiled(part, *made, *arrays) for part in self.parts]

    def _compile_as_one(self, *arrays: Array) -> None:
        forward, parts = self.forward, self.parts

        def step(upstream: Array, *arrays: Array, compiled: bool) -> tuple[Array, list[Array]]:
            value, saved = forward(*arrays, compiled=compiled)
            return value, [x for part in parts for x in part(upstream, saved, *arrays, compiled=compiled)]

        one = tf.ones((), self.dtype)
        both = _compiled(step, one, *arrays)

        def again(upstream: Array, saved: list[Array], *arrays: Array) -> list[Array]:
            return saved if upstream.numpy() == 1 else both(upstream, *arrays)[1]

        self.forward, self.parts = lambda *arrays: both(one, *arrays), [again]


def _compiled(function: Any, *arrays: Any) -> Any:
    types = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), arrays)
    compiled = tf.function(lambda *given: function(*given, compiled=True), autograph=False, jit_compile=True)
    return compiled.get_concrete_function(*types)


@lru_cache(maxsize=256)
def _kernel(template: Call, dtype: Any, watched: Any, eagerly: bool, f: Forward, b: Backward) -> _Kernel:
    return _Kernel(template, dtype, watched, f, b)


def _given(call: Call) -> dict[str, Any]:
    return {name: x for name in _NAMES if (x := getattr(call, name)) is not None}


def _filled(call: Call, arrays: Any) -> Call:
    """Return the call with other arrays; class weights may be a pair."""
    given = _given(call)
    return dataclasses.replace(
        call, **dict(zip(given, tf.nest.pack_sequence_as([*given.values()], arrays), strict=True))
    )


def loss(call: Call, dtype: Any, forward: Forward, backward: Backward, composite: Composite) -> Array:
    """Return the loss as ``dtype``.

    ``forward(call, dtype, compiled)`` returns the value and what the gradient needs, ``backward(call, dtype, saved,
    upstream, inputs, compiled)`` the gradient to these arrays of the call, the logits or others, and
    ``composite(call, dtype)`` the value as differentiable operations.
    """
    arrays, eagerly = tf.nest.flatten([*_given(call).values()]), tf.executing_eagerly()
    if _is_forward_mode(arrays):
        return composite(call, dtype)
    is_watched = [record.should_record_backprop([x]) if eagerly else x.dtype.is_floating for x in arrays]
    watched = tuple(compress(range(len(arrays)), is_watched))
    template = _filled(call, [tf.TensorSpec(x.shape, x.dtype) for x in arrays])
    template = dataclasses.replace(template, none_ignored=False)
    kernel = _kernel(template, dtype, watched, eagerly, forward, backward)
    # What a tape watches would be recorded a second time.
    constants = [tf.stop_gradient(x) if found else x for x, found in zip(arrays, is_watched, strict=True)]
    kernel.count(constants)
    value, saved = kernel.forward(*constants)

    # All that another graph, of a gradient of the gradient, may ask for is handed on to it.
    given = watched if eagerly else tuple(range(len(arrays)))

    def again(inputs: Any, *some: Array) -> Array:
        known = {
            **dict(enumerate(arrays)),
            **dict(zip(given, inputs, strict=True)),
            **dict(zip(watched, some, strict=True)),
        }
        return composite(_filled(call, list(known.values())), dtype)

    def all_of(found: Any) -> list[Any]:
        known = dict(zip(watched, found, strict=True))
        return [known.get(i) for i in given]

    def first(*inputs: Array) -> tuple[Array, Any]:
        def gradient(upstream: Array) -> Any:
            if eagerly and not tf.executing_eagerly():  # of many at once, in a vectorised map
                return _gradients(partial(again, inputs), inputs, upstream)
            if not eagerly or record.should_record_backprop([upstream, *inputs]):
                return all_of(tf.custom_gradient(second)(upstream, *inputs))
            return kernel.backward(upstream, saved, *constants)

        return value, gradient

    def second(upstream: Array, *inputs: Array) -> tuple[list[Array], Any]:
        if not eagerly:  # of this graph: they may be of the one that `first` was traced in
            upstream, inputs = tf.identity(upstream), tuple(map(tf.identity, inputs))

        def gradient(*directions: Array) -> Any:
            some = [x for i, x in zip(given, inputs, strict=True) if i in watched]
            of_upstream, *found = _second_order(partial(again, inputs), some, upstream, directions)
            return [of_upstream, *all_of(found)]

        return kernel.backward(tf.stop_gradient(upstream), saved, *constants), gradient

    return tf.custom_gradient(first)(*(arrays[i] for i in given)) if watched else value


def _is_forward_mode(arrays: list[Array]) -> bool:
    """Whether a tangent is carried along: it comes of a gradient's own, in which no tape records."""
    return bool(forwardprop_util.pack_tangents(arrays).tangents)


def _gradients(f: Any, inputs: Any, upstream: Any) -> list[Array]:
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


def _second_order(f: Any, inputs: Any, upstream: Array, directions: Any) -> list[Array]:
    """Return the gradient of the gradients of f(*inputs), to the upstream gradient and the inputs."""

    def slopes(upstream: Array, *inputs: Array) -> list[Array]:
        return _gradients(f, inputs, upstream)

    return _gradients(slopes, [upstream, *inputs], list(directions))
