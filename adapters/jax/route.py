"""JAX underneath: calls checked, traced or not; the losses in closed form, and the composite for the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .arrays import xp  # isort: skip  (first: it words a missing JAX)

import jax
import jax.numpy as jnp
import numpy as np

from ...call import Call, prepare
from ...compute import composite
from ...compute.arrays import Array, ArrayFunctions
from ...compute.xla import halves_of
from ...lowering import denominator_of, inside_of, lower, reduce, summed
from ...spec import SigmoidCrossEntropy
from .operation import Function, run


@dataclasses.dataclass(frozen=True)
class Deferred:
    """The arguments of a checked call, which is made anew wherever it is differentiated."""

    spec: Any
    logits: Array
    arguments: tuple[Any, ...]
    checked: bool


def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> Deferred:
    """Return the checked call; values are looked at on the host, of traced arrays when they are asked for."""
    logits = xp.asarray(logits, None, "logits")
    if xp.kind(logits) == "f":
        logits = jnp.asarray(logits)
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments))
    if validate is None:
        validate = jax.default_backend() == "cpu" and not traced
    looked_at = bool(validate) and not traced
    # Constants are looked at while a function is traced, too: hence the evaluation at compile time.
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        denominator = prepare(xp, spec, logits, *arguments, check_values=looked_at).denominator
        if isinstance(denominator, float):  # of an int that no array holds, too
            arguments = (*arguments[:-1], denominator)

        def array(x: Any) -> Any:
            if isinstance(x, tuple | list) and x is arguments[2] and isinstance(spec, SigmoidCrossEntropy):
                return tuple(map(array, x))  # a pair of class weights
            return x if x is None else jnp.asarray(xp.asarray(x, logits, "argument"))

        call = Deferred(spec, logits, tuple(map(array, arguments)), looked_at)
    return _checked_when_run(call) if validate and traced else call


def _checked_when_run(call: Deferred) -> Deferred:
    """Return the call, which ends in an error where the function meets values that `prepare` refuses."""
    leaves, structure = jax.tree.flatten(call.arguments)
    traced = [i for i, x in enumerate(leaves) if isinstance(x, jax.core.Tracer)]
    known = {i: np.asarray(x) for i, x in enumerate(leaves) if i not in traced}
    logits = np.broadcast_to(np.zeros((), call.logits.dtype), call.logits.shape)

    def check(*values: Any) -> Any:
        found = known | dict(zip(traced, map(np.asarray, values), strict=True))
        arguments = jax.tree.unflatten(structure, [found[i] for i in range(len(leaves))])
        prepare(ArrayFunctions(np), call.spec, logits, *arguments, check_values=True)
        return np.True_

    values = [jax.lax.stop_gradient(leaves[i]) for i in traced]
    passed = jax.pure_callback(check, jax.ShapeDtypeStruct((), bool), *values, vmap_method="sequential")
    return dataclasses.replace(call, logits=jnp.where(passed, call.logits, jnp.nan))


def loss(call: Deferred) -> Array:
    """Return the loss in the logits' type."""
    return _evaluate(_loss, call, call.spec, call.logits.dtype)


def loss_parts(call: Deferred) -> tuple[Array, Array]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    return _evaluate(_loss, call, summed(call.spec), jnp.float64), _evaluate(_denominator, call, call.spec, jnp.float64)


def _evaluate(function: Any, call: Deferred, spec: Any, dtype: Any) -> Array:
    leaves, structure = jax.tree.flatten((call.logits, call.arguments))
    (result,) = run(function(_Form(spec, structure, call.logits.dtype, call.checked), dtype), *leaves)
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
def _denominator(form: _Form, dtype: Any) -> Function:
    def value(call: Call) -> Array:
        found = denominator_of(xp, call, form.inside)
        return jnp.asarray(1.0 if found is None else found)

    return Function(form.function(value), (dtype,))


@lru_cache(maxsize=64)
def _loss(form: _Form, dtype: Any) -> Function:
    spec, inside, eps = form.spec, form.inside, float(jnp.finfo(form.dtype).eps)

    def value(call: Call) -> Array:
        c = lower(xp, call, inside)
        return reduce(xp, call, composite.rows(xp, spec, xp.astype(call.logits, inside), c, eps, inside), c.denominator)

    def closed(call: Call) -> Array:
        half = halves_of(xp, call, inside)
        return half.value(half.losses()[0])

    def slopes(*given: Array) -> tuple[Array]:
        *leaves, upstream = given
        half = halves_of(xp, form.call(tuple(leaves)), inside)
        _, saved = half.losses()
        (of_losses,) = jax.vjp(lambda losses: xp.astype(half.value(losses), xp.wide), half.linearised_at(saved))[1](
            upstream
        )
        return (half.slopes(of_losses, saved),)

    if spec.inputs != "logits":
        return Function(form.function(value), (dtype,))
    return Function(form.function(value), (dtype,), fast=form.function(closed), slopes=slopes)
