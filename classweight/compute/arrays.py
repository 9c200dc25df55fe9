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
        # The standard has neither `out=` nor assignment by an index array; NumPy and CuPy have both.
        self.in_place = hasattr(xp, "put_along_axis")
        # NumPy's functions are wrappers of these, which cost a small batch microseconds.
        reductions: Any = (xp.sum, xp.any, xp.max, xp.min)
        if xp is np:
            reductions = (f.reduce for f in (np.add, np.logical_or, np.maximum, np.minimum))
        self._sum, self._any, self._max, self._min = reductions
        self.reshape = _reshape if self.in_place else xp.reshape

        @lru_cache(maxsize=64)
        def weights(spec: Any, num_classes: int, device: str) -> Any:
            return wide_weights(spec, num_classes, lambda values: xp.asarray(values, dtype=xp.float64))

        self._weights = weights

    def kind(self, x: Array) -> Kind:
        return (_kind if self.in_place else _kind.__wrapped__)(x.dtype)

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

    def clear(self, x: Array, condition: Array) -> Array:
        """Return ``x``, which may be written over, with zeros; the host saves the pass where there are none to set."""
        return self.where(condition, 0.0, x) if not self.on_host or self.any(condition) else x

    def max(self, x: Array, axis: int | None = None) -> Array:
        return self._max(x, axis=axis, keepdims=axis is not None)

    def min(self, x: Array, axis: int | None = None) -> Array:
        return self._min(x, axis=axis, keepdims=axis is not None)

    def argmax(self, x: Array, axis: int) -> Array:
        return self.expand_dims(self.xp.argmax(x, axis=axis), axis)

    def positions(self, n: int, axis: int, like: Array) -> Array:
        return self.reshape(self.xp.arange(n, dtype=self.int64), class_shape(n, axis, like.ndim))

    def take(self, values: Array, index: Array) -> Array:
        if self.in_place:
            return values.take(index)
        return self.reshape(self.xp.take(values, self.reshape(index, (-1,)), axis=0), index.shape)

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        return self.xp.take_along_axis(x, index, axis=axis)

    def put(self, x: Array, index: Array, values: Array | float, axis: int) -> Array:
        """Return ``x``, which may be written over, with ``values`` at ``index`` along ``axis``."""
        if self.in_place:
            self.xp.put_along_axis(x, index, values, axis)
            return x
        return self.where(self.positions(x.shape[axis], axis, x) == index, values, x)

    def subtract(self, x: Array, y: Array, out: Array | None) -> Array:
        """Return x - y, written to ``out`` where there is one."""
        return x - y if out is None or not self.in_place else self.xp.subtract(x, y, out=out)

    def multiply(self, x: Array, y: Array) -> Array:
        """Return the product in memory of its own, its last axis contiguous."""
        return np.multiply(x, y, order="C") if self.xp is np else x * y

    def transpose(self, x: Array, order: tuple[int, ...]) -> Array:
        """Return the axes in another order."""
        return x.transpose(order) if self.in_place else self.xp.permute_dims(x, order)

    def exp_of(self, x: Array, out: Array | None) -> Array:
        """Return exp(x), written to ``out`` where there is one."""
        return self.xp.exp(x) if out is None or not self.in_place else self.xp.exp(x, out=out)

    def detach(self, x: Array) -> Array:
        return x

    def eps(self, x: Array) -> float:
        return 2.0**-7 if "bfloat16" in str(x.dtype) else float(self.xp.finfo(x.dtype).eps)


class Entries:
    """The entries at ``index`` along an axis, one a row: found once, read and written often."""

    def __init__(self, xp: ArrayFunctions, x: Array, index: Array, axis: int) -> None:
        self.xp, self.index, self.axis = xp, index, axis
        self.flat = None
        if xp.xp is np and x.ndim == 2:
            n, inner = x.shape[1 - axis], x.shape[1]
            self.flat = index * inner + np.arange(n) if axis == 0 else index + inner * np.arange(n)[:, None]

    def get(self, x: Array) -> Array:
        """Return the entries of ``x``."""
        if self.flat is None:
            return self.xp.pick(x, self.index, self.axis)
        return x.reshape(-1).take(self.flat)

    def put(self, x: Array, values: Array | float) -> Array:
        """Return ``x``, which is contiguous and may be written over, with these entries."""
        if self.flat is None:
            return self.xp.put(x, self.index, values, self.axis)
        x.reshape(-1)[self.flat] = values
        return x


def wide_weights(spec: Any, num_classes: int, array: Callable[[Any], Array]) -> Any:
    """Return a spec's class weights through ``array``: one array, or a pair for a binary loss."""
    values = spec.class_weight_values(num_classes)
    return array(values) if hasattr(spec, "axis") else tuple(map(array, values))


def class_shape(n: int, axis: int, ndim: int) -> tuple[int, ...]:
    """Return the shape with ``n`` along ``axis`` and 1 along each other of ``ndim`` axes."""
    return (1,) * axis + (n,) + (1,) * (ndim - axis - 1)
