"""A function that is computed in float64, whatever ``jax_enable_x64`` says, as one operation of JAX.

Unless 64 bits are enabled, JAX makes float32 of float64 wherever it composes something: while it differentiates,
transposes, maps and lowers. So a function, its tangents, its gradients and its maps are operations of their own: JAX
sees arrays of the caller's types go in and come out, and derives nothing from what is inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from .arrays import xp  # isort: skip  (first: it words a missing JAX)

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from ...compute.arrays import Array
from ...compute.closed_form import round_once

__all__ = ["Function", "run"]

Compute = Callable[..., tuple[Array, ...]]


class Function:
    """What an operation computes. Floats enter as float64, and each result is rounded once, to its dtype.

    JAX differentiates ``compute``, any number of times and in either mode. ``fast``, which is not differentiated, has
    the same values; ``slopes`` makes the gradient to the first array, given all and the upstream gradients. All is
    linear in the last arrays, ``linear`` in number. Of tangents, ``origin`` is the function and whose they are.
    """

    def __init__(
        self,
        compute: Compute,
        dtypes: Sequence[Any],
        *,
        fast: Compute | None = None,
        slopes: Compute | None = None,
        linear: int = 0,
        origin: tuple[Function, tuple[int, ...]] | None = None,
    ) -> None:
        self.compute, self.dtypes, self.fast, self.slopes = compute, tuple(dtypes), fast or compute, slopes
        self.linear, self.origin = linear, origin

    def __call__(self, *arrays: Array) -> list[Array]:
        results = self.fast(*(xp.astype(x, xp.wide) if xp.kind(x) == "f" else x for x in arrays))
        return [round_once(xp, x, dtype) for x, dtype in zip(results, self.dtypes, strict=True)]

    def of(self, which: tuple[int, ...], arrays: Sequence[Array]) -> Compute:
        """Return the function of some of its arrays, the others being constants."""
        return lambda *some: self.compute(*(dict(enumerate(arrays)) | dict(zip(which, some, strict=True))).values())


# Each call gets the same function each time, for JAX compiles it.
@lru_cache(maxsize=256)
def _tangents(f: Function, which: tuple[int, ...]) -> Function:
    """Return the tangents of the results: from the arrays, and the tangents of some of them."""
    n = len(which)

    def compute(*given: Array) -> Any:
        arrays, tangents = given[:-n], given[-n:]
        return jax.jvp(f.of(which, arrays), [arrays[i] for i in which], list(tangents))[1]

    return Function(compute, f.dtypes, linear=n, origin=(f, which))


@lru_cache(maxsize=256)
def _pullback(f: Function, i: int, dtype: Any) -> Function:
    """Return the gradient to one array: from the arrays, and the upstream gradients."""
    n = len(f.dtypes)

    def compute(*given: Array) -> Any:
        arrays, upstream = given[:-n], given[-n:]
        return jax.vjp(f.of((i,), arrays), arrays[i])[1](upstream)

    return Function(compute, (dtype,), fast=f.slopes if i == 0 else None, linear=n)


@lru_cache(maxsize=256)
def _mapped(f: Function, axes: tuple[int | None, ...]) -> Function:
    """Return the function of many arrays at a time, along these axes."""

    def mapped(function: Compute | None, more: tuple[int, ...] = ()) -> Any:
        return function and jax.vmap(function, (*axes, *more))

    slopes = mapped(f.slopes, (0,) * len(f.dtypes))
    return Function(mapped(f.compute), f.dtypes, fast=mapped(f.fast), slopes=slopes, linear=f.linear)


@lru_cache(maxsize=1024)
def _jaxpr(f: Function, kinds: tuple[Any, ...]) -> Any:
    with jax.enable_x64(True):
        return jax.make_jaxpr(f.__call__)(*kinds)


@lru_cache(maxsize=256)
def _compiled(f: Function) -> Any:
    return jax.jit(partial(_operation.bind, f=f))


def _lower(context: Any, *values: Any, f: Function) -> Any:
    with jax.enable_x64(True):
        function = jaxpr_as_fun(_jaxpr(f, tuple(context.avals_in)))
        return mlir.lower_fun(function, multiple_results=True)(context, *values)


def _differentiate(arrays: Sequence[Array], tangents: Sequence[Any], f: Function) -> Any:
    which = tuple(i for i, x in enumerate(tangents) if type(x) is not ad.Zero and xp.kind(arrays[i]) == "f")
    results, along = _operation.bind(*arrays, f=f), [tangents[i] for i in which]
    if not which:  # integers alone
        return results, [ad.Zero.from_primal_value(x) for x in results]
    return results, _operation.bind(*arrays, *along, f=_tangents(f, which))


def _transpose(upstream: Sequence[Any], *given: Any, f: Function) -> list[Any]:
    upstream, n = [ad.instantiate_zeros(x) for x in upstream], len(given) - f.linear
    arrays, linear = given[:n], [x.aval for x in given[n:]]
    base, which = f.origin or (f, tuple(range(n, len(given))))
    if not f.origin:  # linear: the gradient is the same at any values
        arrays = (*arrays, *(ad.instantiate_zeros(ad.Zero(kind)) for kind in linear))
    bind = partial(_operation.bind, *arrays, *upstream)
    found = [bind(f=_pullback(base, i, kind.dtype))[0] for i, kind in zip(which, linear, strict=True)]
    return [None] * n + found


def _map(arrays: Sequence[Array], axes: Sequence[int | None], f: Function) -> tuple[list[Array], list[int]]:
    results = _operation.bind(*arrays, f=_mapped(f, tuple(axes)))
    return results, [0] * len(results)


_operation = Primitive("classweight")
_operation.multiple_results = True
_operation.def_impl(lambda *arrays, f: _compiled(f)(*arrays))
_operation.def_abstract_eval(lambda *kinds, f: _jaxpr(f, kinds).out_avals)
mlir.register_lowering(_operation, _lower)
ad.primitive_jvps[_operation] = _differentiate
ad.primitive_transposes[_operation] = _transpose
batching.primitive_batchers[_operation] = _map


def run(f: Function, *arrays: Array) -> list[Array]:
    """Return the results of the function."""
    axes = frozenset[Any]().union(*map(_varying, arrays))
    return _operation.bind(*(_spread(x, axes - _varying(x)) for x in arrays), f=f)  # type: ignore[no-any-return]


def _varying(x: Array) -> frozenset[Any]:
    """Return the axes of ``shard_map`` along which an array may differ."""
    kind = jax.typeof(x)
    return frozenset(kind.mat.varying if hasattr(kind, "mat") else kind.vma)


def _spread(x: Array, axes: frozenset[Any]) -> Array:
    """Return what is the same everywhere as what may differ, so that its gradient is summed over the shards."""
    return jax.lax.pcast(x, tuple(axes), to="varying") if axes else x
