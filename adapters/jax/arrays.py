"""JAX beneath everything else: the array functions, called where 64 bits are enabled."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import missing_framework, refuse

try:
    import jax
except ImportError as cause:
    missing_framework("jax", "jax", cause)
import jax.numpy as jnp

from ...compute.arrays import Array, ArrayFunctions, class_shape, wide_weights
from ...compute.xla import Compiled

MANY = 64  # classes, from which on a CPU is faster to write one entry than to choose it among all
FEW = 4096  # numbers: fewer are added up on a CPU in another order


class JaxArrays(Compiled, ArrayFunctions):
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

    def positions(self, n: int, axis: int, like: Array) -> Array:
        return np.arange(n).reshape(class_shape(n, axis, like.ndim))

    def take(self, values: Array, index: Array) -> Array:
        sharding = None if _is_whole(index) else jax.typeof(index).sharding
        return values.at[index].get(mode="promise_in_bounds", out_sharding=sharding)

    def entries(self, x: Array, index: Array, axis: int) -> Array:
        if _is_whole(x):
            return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds")
        return self.pick(x, index, axis)

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        return self.sum(self.where(self.positions(x.shape[axis], axis, x) == index, x, 0.0), axis)

    def max(self, x: Array, axis: int) -> Array:
        return jnp.max(x, axis=axis, keepdims=True)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        # Equal terms, added up one after another in their own type, all round to the same side.
        wide = self.wide if x.dtype == self.float32 else None
        return jnp.sum(x, axis=axis, keepdims=axis is not None, dtype=wide).astype(x.dtype)

    def detach(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)

    def sum_in_type(self, x: Array, axis: int) -> Array:
        return _added_up(x, axis)

    def wide_sum(self, x: Array, axis: int) -> Array:
        return _added_up(x, axis) if x.dtype == self.wide else jnp.sum(x, axis=axis, keepdims=True, dtype=self.wide)

    def with_entries(self, x: Array, index: Array, values: Array | None, axis: int) -> Array:
        values = 0.0 if values is None else values
        if x.shape[axis] >= MANY and jax.default_backend() == "cpu" and _is_whole(x):
            return jnp.put_along_axis(x, index, values, axis, inplace=False, mode="promise_in_bounds")
        return self.where(self.positions(x.shape[axis], axis, x) == index, values, x)

    def times(self, x: Array, rows: Array) -> Array:
        return super().times(x, jax.lax.optimization_barrier(rows))  # which are not made anew for each entry

    def isnan(self, x: Array) -> Array:
        return jnp.isnan(x)

    def weighted(self, losses: Array, alpha: Array) -> Array:
        return jnp.where(alpha == 0, 0.0, losses * alpha)


xp = JaxArrays(jnp)


def _is_whole(x: Array) -> bool:
    """Whether the array's type says nothing of shards, among which JAX looks for no entry."""
    return bool(jax.typeof(x).sharding.mesh.empty)


def _added_up(x: Array, axis: int) -> Array:
    """Return the sum along an axis, in an order that does not depend on the other lengths."""
    if 0 < x.size < FEW and jax.default_backend() == "cpu" and _is_whole(x):
        more = jnp.pad(x[None], ((0, FEW // x.size), *((0, 0),) * x.ndim))
        return jnp.sum(more, axis=axis + 1, keepdims=True)[0]
    return jnp.sum(x, axis=axis, keepdims=True)


@lru_cache(maxsize=64)
def _weights(spec: Any, num_classes: int) -> Any:
    return wide_weights(spec, num_classes, lambda values: np.asarray(values, np.float64))
