"""The handful of array functions that the lowering and the composite losses are written over.

Python's operators do the arithmetic; this protocol is the rest. A framework implements it once and then has every
convention. `ArrayFunctions` serves every namespace of the array API standard: NumPy, CuPy, array-api-strict.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from ..errors import refuse

Array: TypeAlias = Any
Kind: TypeAlias = Literal["f", "i", "b", "other"]


class Arrays(Protocol):
    """What a framework offers. Every method returns a new array; ``axis`` is never negative; sums keep the axis."""

    wide: Any
    """The type of weights and sums: float64."""
    float32: Any
    int64: Any
    flushes: bool
    """Whether numbers below the smallest normal one become 0."""

    def kind(self, x: Array) -> Kind:
        """Return "f" for floating, "i" for integer, "b" for bool, else "other"."""

    def asarray(self, x: Any, like: Array, name: str) -> Array:
        """Return a call's argument as an array on the device of ``like``, its own type kept; ``name`` is for errors."""

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return the values on the host."""

    def shape(self, x: Array) -> tuple[Any, ...]:
        """Return the shape; an axis whose length is not known yet is a scalar tensor."""

    def static_shape(self, x: Array) -> tuple[int | None, ...]:
        """Return the shape; an axis whose length is not known yet is None."""

    def astype(self, x: Array, dtype: Any) -> Array:
        """Return ``x`` as ``dtype``; a gradient flows through."""

    def weights(self, spec: Any, num_classes: int, like: Array) -> Any:
        """Return ``spec.class_weight_values(num_classes)`` as a wide array, or a pair of them, on ``like``'s device."""

    def ones(self, shape: tuple[Any, ...], like: Array) -> Array:
        """Return wide ones on the device of ``like``."""

    def broadcast_to(self, x: Array, like: Array) -> Array:
        """Return ``x`` in the shape of ``like``."""

    def reshape(self, x: Array, shape: tuple[Any, ...]) -> Array: ...
    def expand_dims(self, x: Array, axis: int) -> Array: ...
    def equal(self, x: Array, y: Array | float) -> Array:
        """Return where the two are equal: in a graph of TensorFlow 1, ``==`` asks whether they are one object."""

    def where(self, condition: Array, x: Array | float, y: Array | float) -> Array: ...
    def sum(self, x: Array, axis: int | None = None) -> Array: ...
    def any(self, x: Array, axis: int) -> Array: ...
    def argmax(self, x: Array, axis: int) -> Array:
        """Return the first index of the largest value, the axis kept."""

    def positions(self, n: int, axis: int, like: Array) -> Array:
        """Return 0..n-1 as int64 along ``axis``, of length 1 along each other axis of ``like``."""

    def take(self, values: Array, index: Array) -> Array:
        """Return ``values[index]`` for 1-d values and an index of any shape."""

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        """Return the entries at ``index`` along ``axis``, which is kept with length 1."""

    def exp(self, x: Array) -> Array: ...
    def expm1(self, x: Array) -> Array: ...
    def log(self, x: Array) -> Array: ...
    def log1p(self, x: Array) -> Array: ...
    def detach(self, x: Array) -> Array:
        """Return ``x`` as a constant."""

    def eps(self, x: Array) -> float:
        """Return the spacing of ``x``'s floating type at 1."""


_KINDS: dict[str, Kind] = {"float": "f", "bfloat16": "f", "int": "i", "uint": "i", "bool": "b"}


@lru_cache(maxsize=64)
def _kind(dtype: Any) -> Kind:
    name = getattr(dtype, "name", str(dtype)).rsplit(".", 1)[-1]  # NumPy's str of a swapped type is ">f8"
    for prefix, kind in _KINDS.items():
        if name.startswith(prefix):
            return kind
    return "other"


def _reshape(x: Array, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


class ArrayFunctions:
    """The protocol over a namespace of the array API standard, or over a NumPy of before it."""

    flushes = False

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.wide, self.float32, self.int64 = xp.float64, xp.float32, xp.int64
        self.exp, self.expm1, self.log, self.log1p, self.where = xp.exp, xp.expm1, xp.log, xp.log1p, xp.where
        self.equal = operator.eq
        self.on_host = xp.__name__ != "cupy"
        # What arrays of NumPy and CuPy have beside the standard.
        self.has_methods = hasattr(xp, "put_along_axis")
        # NumPy's functions are wrappers of these, which cost a small batch microseconds.
        reductions: Any = (np.add.reduce, np.logical_or.reduce) if xp is np else (xp.sum, xp.any)
        self._sum, self._any = reductions
        self.reshape = _reshape if self.has_methods else xp.reshape

        @lru_cache(maxsize=64)
        def weights(spec: Any, num_classes: int, device: str) -> Any:
            return wide_weights(spec, num_classes, lambda values: xp.asarray(values, dtype=xp.float64))

        self._weights = weights

    def kind(self, x: Array) -> Kind:
        return (_kind if self.has_methods else _kind.__wrapped__)(x.dtype)

    def asarray(self, x: Any, like: Array, name: str) -> Array:
        if isinstance(x, type(like)):
            return x
        try:
            return self.xp.asarray(x)
        except (TypeError, ValueError):
            refuse(name, "be numbers in a regular shape", repr(x), error=TypeError)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return x.get() if hasattr(x, "get") else np.asarray(x)  # `get` is CuPy's copy to the host

    def shape(self, x: Array) -> tuple[Any, ...]:
        return tuple(x.shape)

    static_shape = shape

    def astype(self, x: Array, dtype: Any) -> Array:
        if x.dtype == dtype:
            return x
        return x.astype(dtype) if hasattr(x, "astype") else self.xp.astype(x, dtype)

    def weights(self, spec: Any, num_classes: int, like: Array) -> Any:
        return self._weights(spec, num_classes, str(getattr(like, "device", "")))

    def ones(self, shape: tuple[Any, ...], like: Array) -> Array:
        return self.xp.ones(shape, dtype=self.wide)

    def broadcast_to(self, x: Array, like: Array) -> Array:
        return self.xp.broadcast_to(x, like.shape)

    def expand_dims(self, x: Array, axis: int) -> Array:
        return x[(slice(None),) * axis + (None, ...)]

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return self._sum(x, axis=axis, keepdims=axis is not None)

    def any(self, x: Array, axis: int | None = None) -> Array:
        return self._any(x, axis=axis, keepdims=axis is not None)

    def argmax(self, x: Array, axis: int) -> Array:
        return self.expand_dims(self.xp.argmax(x, axis=axis), axis)

    def positions(self, n: int, axis: int, like: Array) -> Array:
        return self.reshape(self.xp.arange(n, dtype=self.int64), class_shape(n, axis, like.ndim))

    def take(self, values: Array, index: Array) -> Array:
        if self.has_methods:
            return values.take(index)
        return self.reshape(self.xp.take(values, self.reshape(index, (-1,)), axis=0), index.shape)

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        return self.xp.take_along_axis(x, index, axis=axis)

    def detach(self, x: Array) -> Array:
        return x

    def eps(self, x: Array) -> float:
        return 2.0**-7 if "bfloat16" in str(x.dtype) else float(self.xp.finfo(x.dtype).eps)


def wide_weights(spec: Any, num_classes: int, array: Callable[[Any], Array]) -> Any:
    """Return a spec's class weights through ``array``: one array, or a pair for a binary loss."""
    values = spec.class_weight_values(num_classes)
    return array(values) if hasattr(spec, "axis") else tuple(map(array, values))


def class_shape(n: int, axis: int, ndim: int) -> tuple[int, ...]:
    """Return the shape with ``n`` along ``axis`` and 1 along each other of ``ndim`` axes."""
    return (1,) * axis + (n,) + (1,) * (ndim - axis - 1)
