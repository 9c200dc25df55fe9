"""JAX underneath, for Keras: the array functions, and the loss in float64 whatever ``jax_enable_x64`` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import missing_framework, refuse

try:
    import jax
except ImportError as cause:
    missing_framework("keras", "jax", cause)
import jax.numpy as jnp

from .. import composite
from .._arrays import Array, ArrayFunctions, class_shape, wide_weights
from ..call import prepare
from ..closed_form import round_once
from ..lowering import lower, reduce, undivided
from ..spec import SigmoidCrossEntropy


class JaxArrays(ArrayFunctions):
    """The array functions of ``jax.numpy``, called where 64 bits are enabled."""

    flushes = True

    def asarray(self, x: Any, like: Array, name: str) -> Array:
        try:
            return x if isinstance(x, jax.Array) else np.asarray(x)
        except (TypeError, ValueError):
            refuse(name, "be numbers in a regular shape", repr(x), error=TypeError)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.asarray(self.astype(x, self.wide) if self.kind(x) == "f" else x)

    def weights(self, spec: Any, num_classes: int, like: Array) -> Any:
        return jax.tree.map(jnp.asarray, _weights(spec, num_classes))

    # The next three avoid what JAX composes while it lowers, an argmax or a range: by then 64 bits are disabled again.
    def argmax(self, x: Array, axis: int) -> Array:
        n = x.shape[axis]
        first = (x == self.max(x, axis)) | (x != x)
        return jnp.min(jnp.where(first, self.positions(n, axis, x), n - 1), axis, keepdims=True)

    def positions(self, n: int, axis: int, like: Array) -> Array:
        return np.arange(n).reshape(class_shape(n, axis, like.ndim))

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        return self.sum(self.where(self.positions(x.shape[axis], axis, x) == index, x, 0.0), axis)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        # Equal terms, added up one after another in their own type, all round to the same side.
        wide = self.wide if x.dtype == self.float32 else None
        return jnp.sum(x, axis=axis, keepdims=axis is not None, dtype=wide).astype(x.dtype)

    def detach(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)


xp = JaxArrays(jnp)


@lru_cache(maxsize=64)
def _weights(spec: Any, num_classes: int) -> Any:
    return wide_weights(spec, num_classes, lambda values: np.asarray(values, np.float64))


@dataclasses.dataclass(frozen=True)
class Deferred:
    """The arguments of a checked call, which is made anew wherever it is differentiated."""

    spec: Any
    logits: Array
    arguments: tuple[Any, ...]
    checked: bool


def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> Deferred:
    """Return the checked call; values are looked at on the host unless they are traced."""
    logits = jnp.asarray(logits)
    if validate is None:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments))
        validate = jax.default_backend() == "cpu" and not traced
    # Constants are looked at while a function is traced, too: hence the evaluation at compile time.
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        prepare(xp, spec, logits, *arguments, check_values=validate)

        def array(x: Any) -> Any:
            if isinstance(x, tuple | list) and x is arguments[2] and isinstance(spec, SigmoidCrossEntropy):
                return tuple(map(array, x))  # a pair of class weights
            return x if x is None else jnp.asarray(xp.asarray(x, logits, "argument"))

        return Deferred(spec, logits, tuple(map(array, arguments)), validate)


def loss(call: Deferred) -> Array:
    """Return the loss in the logits' type."""
    return _evaluate(call, parts=False)[0]


def loss_parts(call: Deferred) -> tuple[Array, Array]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    numerator, denominator = _evaluate(call, parts=True)
    return numerator, denominator


def _evaluate(call: Deferred, *, parts: bool) -> tuple[Array, ...]:
    leaves, structure = jax.tree.flatten((call.logits, call.arguments))
    return _function(call.spec, structure, call.logits.dtype, call.checked, parts)(*leaves)  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _function(spec: Any, structure: Any, dtype: Any, checked: bool, parts: bool) -> Callable[..., Any]:
    """Return the loss, or its parts, as a function of a call's arrays: the same each time, for JAX compiles it."""
    inside = jnp.float64 if spec.precision == "exact" or dtype == jnp.float64 else jnp.float32
    eps = float(jnp.finfo(dtype).eps)

    def compute(*leaves: Array) -> tuple[Array, ...]:
        logits, arguments = jax.tree.unflatten(structure, leaves)
        call = dataclasses.replace(prepare(xp, spec, logits, *arguments, check_values=False), checked=checked)
        c = lower(xp, call, inside)
        rows = composite.rows(xp, spec, xp.astype(logits, inside), undivided(c) if parts else c, eps, inside)
        if parts:
            denominator = 1.0 if c.denominator is None else c.denominator
            return xp.sum(xp.astype(rows, xp.wide)), jnp.asarray(denominator, xp.wide)
        return (xp.astype(reduce(xp, call, rows, c.denominator), xp.wide),)

    return _in_float64(compute, (jnp.float64, jnp.float64) if parts else (dtype,))


def _in_float64(compute: Callable[..., Any], dtypes: tuple[Any, ...]) -> Callable[..., Any]:
    """Return ``compute`` as a function of arrays of any type: floats enter as float64, results are rounded once.

    JAX makes float32 of float64 unless ``jax_enable_x64`` is set, and a gradient is taken where that no longer holds:
    so the gradient is a function of this kind too, of which there is another gradient.
    """

    def rounded(*arrays: Array) -> tuple[Array, ...]:
        results = compute(*(xp.astype(x, xp.wide) if xp.kind(x) == "f" else x for x in arrays))
        return tuple(round_once(xp, x, dtype) for x, dtype in zip(results, dtypes, strict=True))

    compiled = jax.jit(rounded)

    def wide(*arrays: Array) -> Any:
        with jax.enable_x64(True):
            return compiled(*arrays)

    run = jax.custom_vjp(wide)

    def forward(*arrays: Array) -> Any:
        return run(*arrays), arrays

    def backward(arrays: tuple[Array, ...], upstream: tuple[Array, ...]) -> Any:
        floats = {i: x.dtype for i, x in enumerate(arrays) if xp.kind(x) == "f"}
        found = gradient(tuple(floats), tuple(floats.values()))(*upstream, *arrays)
        each = dict(zip(floats, found, strict=True))
        return tuple(each.get(i) for i in range(len(arrays)))  # integers have no gradient

    @lru_cache(maxsize=8)
    def gradient(floats: tuple[int, ...], types: tuple[Any, ...]) -> Callable[..., Any]:
        def gradients(*both: Array) -> Any:
            upstream, arrays = both[: len(dtypes)], list(both[len(dtypes) :])

            def of_floats(*values: Array) -> Any:
                for i, value in zip(floats, values, strict=True):
                    arrays[i] = value
                return compute(*arrays)

            return jax.vjp(of_floats, *(arrays[i] for i in floats))[1](upstream)

        return _in_float64(gradients, types)

    run.defvjp(forward, backward)
    return run  # type: ignore[no-any-return]
