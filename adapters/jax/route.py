"""JAX underneath, for Keras: the array functions, and the loss in float64 whatever ``jax_enable_x64`` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import missing_framework, refuse

try:
    import jax
except ImportError as cause:
    missing_framework("keras", "jax", cause)
import jax.numpy as jnp

from ...call import Call, prepare
from ...compute import composite
from ...compute.arrays import Array, ArrayFunctions, class_shape, wide_weights
from ...compute.closed_form import round_once
from ...compute.xla import Compiled, halves_of
from ...lowering import denominator_of, inside_of, lower, reduce, summed
from ...spec import SigmoidCrossEntropy


class JaxArrays(Compiled, ArrayFunctions):
    """The array functions of ``jax.numpy``, called where 64 bits are enabled."""

    flushes = True
    entries = ArrayFunctions.pick

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

    def sum_in_type(self, x: Array, axis: int) -> Array:
        return jnp.sum(x, axis=axis, keepdims=True)

    def wide_sum(self, x: Array, axis: int) -> Array:
        return jnp.sum(x, axis=axis, keepdims=True, dtype=self.wide)

    def with_entries(self, x: Array, index: Array, values: Array | None, axis: int) -> Array:
        return self.where(self.positions(x.shape[axis], axis, x) == index, 0.0 if values is None else values, x)

    def isnan(self, x: Array) -> Array:
        return jnp.isnan(x)

    def weighted(self, losses: Array, alpha: Array) -> Array:
        return jnp.where(alpha == 0, 0.0, losses * alpha)


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
    return _evaluate(_loss, call, call.spec, call.logits.dtype)


def loss_parts(call: Deferred) -> tuple[Array, Array]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    return _evaluate(_loss, call, summed(call.spec), jnp.float64), _evaluate(_denominator, call, call.spec, jnp.float64)


def _evaluate(function: Any, call: Deferred, spec: Any, dtype: Any) -> Array:
    leaves, structure = jax.tree.flatten((call.logits, call.arguments))
    (result,) = function(_Form(spec, structure, call.logits.dtype, call.checked), dtype)(*leaves)
    return result


@dataclasses.dataclass(frozen=True)
class _Form:
    """What is known of a call without its arrays."""

    spec: Any
    structure: Any
    dtype: Any
    checked: bool

    @property
    def inside(self) -> Any:
        """The type that is computed in."""
        return inside_of(xp, self.spec, self.dtype)

    def call(self, leaves: tuple[Array, ...]) -> Call:
        logits, arguments = jax.tree.unflatten(self.structure, leaves)
        call = prepare(xp, self.spec, logits, *arguments, check_values=False)
        return dataclasses.replace(call, checked=self.checked)

    def function(self, value: Callable[[Call], Array]) -> Callable[..., tuple[Array]]:
        """Return a value of calls as a function of their arrays, in float64."""
        return lambda *leaves: (xp.astype(value(self.call(leaves)), xp.wide),)


# Each call gets the same function each time, for JAX compiles it.
@lru_cache(maxsize=64)
def _denominator(form: _Form, dtype: Any) -> Callable[..., Any]:
    def value(call: Call) -> Array:
        found = denominator_of(xp, call, form.inside)
        return jnp.asarray(1.0 if found is None else found)

    return _in_float64(form.function(value), (dtype,))


@lru_cache(maxsize=64)
def _loss(form: _Form, dtype: Any) -> Callable[..., Any]:
    spec, inside, eps = form.spec, form.inside, float(jnp.finfo(form.dtype).eps)

    def value(call: Call) -> Array:
        c = lower(xp, call, inside)
        return reduce(xp, call, composite.rows(xp, spec, xp.astype(call.logits, inside), c, eps, inside), c.denominator)

    def closed(call: Call) -> Array:
        half = halves_of(xp, call, inside)
        return half.value(half.losses()[0])

    def slopes(upstream: Array, *leaves: Array) -> tuple[Array]:
        half = halves_of(xp, form.call(leaves), inside)
        _, saved = half.losses()
        (of_losses,) = jax.vjp(lambda losses: xp.astype(half.value(losses), xp.wide), half.linearised_at(saved))[1](
            upstream
        )
        return (half.slopes(of_losses, saved),)

    if spec.inputs != "logits":
        return _in_float64(form.function(value), (dtype,))
    return _in_float64(form.function(value), (dtype,), run=form.function(closed), slopes=slopes)


def _in_float64(
    compute: Callable[..., Any],
    dtypes: tuple[Any, ...],
    run: Callable[..., Any] | None = None,
    slopes: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Return ``compute`` as a function of arrays of any type: floats enter as float64, results are rounded once.

    JAX makes float32 of float64 unless ``jax_enable_x64`` is set, and a gradient is taken where that no longer holds:
    so the gradient is a function of this kind too, of which there is another gradient.

    ``run`` has the same values, and what ``slopes`` makes of upstream gradients and arrays is the gradient to the first
    of these; they are not differentiated.
    """

    def rounded(*arrays: Array) -> tuple[Array, ...]:
        results = (run or compute)(*(xp.astype(x, xp.wide) if xp.kind(x) == "f" else x for x in arrays))
        return tuple(round_once(xp, x, dtype) for x, dtype in zip(results, dtypes, strict=True))

    compiled = jax.jit(rounded)

    def wide(*arrays: Array) -> Any:
        with jax.enable_x64(True):
            return compiled(*arrays)

    function = jax.custom_vjp(wide)

    def forward(*arrays: Array) -> Any:
        return function(*arrays), arrays

    def backward(arrays: tuple[Array, ...], upstream: tuple[Array, ...]) -> Any:
        floats = [i for i, x in enumerate(arrays) if xp.kind(x) == "f"]
        found: list[Any] = [None] * len(arrays)  # integers have no gradient
        for some in filter(None, (floats[:1], floats[1:]) if slopes else (floats,)):
            gradients = gradient(tuple(some), tuple(arrays[i].dtype for i in some))
            for i, x in zip(some, gradients(*upstream, *arrays), strict=True):
                found[i] = x
        return tuple(found)

    @lru_cache(maxsize=8)
    def gradient(floats: tuple[int, ...], types: tuple[Any, ...]) -> Callable[..., Any]:
        def gradients(*both: Array) -> Any:
            upstream, arrays = both[: len(dtypes)], list(both[len(dtypes) :])

            def of_floats(*values: Array) -> Any:
                for i, value in zip(floats, values, strict=True):
                    arrays[i] = value
                return compute(*arrays)

            return jax.vjp(of_floats, *(arrays[i] for i in floats))[1](upstream)

        return _in_float64(gradients, types, run=slopes if floats == (0,) else None)  # logits come first

    function.defvjp(forward, backward)
    return function  # type: ignore[no-any-return]
