"""The parts of a call that are computed while they are in cache, and how the rows of one lie in memory.

A block is a tuple of slices, one for each axis of the logits; `...` is everything. On the host a block's rows are laid
out in two axes: row by row or, where classes are few or not on the last axis, class by class, so that an operation on
rows is one on long vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..call import Call, drop
from ..spec import SoftmaxCrossEntropy
from .arrays import Array, ArrayFunctions

BLOCK_BYTES = 1 << 20
FEW_CLASSES = 32


def fits_a_block(xp: ArrayFunctions, call: Call, dtype: Any) -> bool:
    """Whether the call is not divided, as none is on a device."""
    return not xp.on_host or call.logits.size <= _room(xp, dtype)


def blocks(xp: ArrayFunctions, call: Call, dtype: Any) -> Iterator[Any]:
    """Yield the blocks of a call that is computed in ``dtype``, of about `BLOCK_BYTES`."""
    if fits_a_block(xp, call, dtype):
        yield ...
        return
    shape, room, size = call.logits.shape, _room(xp, dtype), call.logits.size
    ranges: list[Any] = []
    for axis, length in enumerate(shape):
        step = length
        if axis != call.position_axis:
            size //= length  # of an entry on this axis, all its classes included
            step = min(length, max(1, room // size))
        ranges.append([slice(start, min(start + step, length)) for start in range(0, length, step)])
    yield from itertools.product(*ranges)


def _room(xp: ArrayFunctions, dtype: Any) -> int:
    return BLOCK_BYTES // (8 if dtype == xp.wide else 4)


def part(x: Array | None, block: Any) -> Any:
    """Return the block's share of an array that broadcasts against the logits."""
    if x is None or block is ... or isinstance(x, int) or not x.ndim:
        return x
    aligned = block[len(block) - x.ndim :]
    return x[tuple(s if n > 1 else slice(None) for s, n in zip(aligned, x.shape, strict=True))]


def part_of_call(call: Call, block: Any) -> Call:
    """Return the call on one block."""
    if block is ...:
        return call
    positions, weights = drop(block, call.position_axis), call.class_weight
    logits, targets = call.logits[block], call.targets[positions if call.hard else block]
    sample_weight, mask = (None if x is None else x[positions[: x.ndim]] for x in (call.sample_weight, call.mask))
    if isinstance(weights, tuple):
        weights = tuple(part(weight, block) for weight in weights)
    return Call(
        spec=call.spec,
        logits=logits,
        targets=targets,
        sample_weight=sample_weight,
        class_weight=weights,
        mask=mask,
        denominator=call.denominator,
        checked=call.checked,
        shape=tuple(logits.shape),
        axis=call.axis,
        none_ignored=call.none_ignored,
    )


class Layout:
    """The rows of a block in two axes, the classes on ``axis``; a binary loss and a device leave them as they are."""

    def __init__(self, xp: ArrayFunctions, call: Call) -> None:
        ndim, axis, self.xp = call.logits.ndim, call.axis, xp
        self.flat = xp.on_host and isinstance(call.spec, SoftmaxCrossEntropy)
        self.order: tuple[int, ...] | None = None
        self.axis = axis
        if self.flat:
            by_class = axis != ndim - 1 or call.num_classes <= FEW_CLASSES
            self.axis = 0 if by_class else 1
            self.order = (axis, *(i for i in range(ndim) if i != axis)) if by_class else None

    def array(self, x: Array, dtype: Any) -> Array:
        """Return logits or distributions of a block as ``dtype``: a view where it can be."""
        xp = self.xp
        if self.order is None or not self.flat:
            x = xp.astype(x, dtype)
            return xp.reshape(x, (-1, x.shape[-1])) if self.flat else x
        moved = xp.transpose(x, self.order)
        moved = np.ascontiguousarray(moved, dtype=dtype) if xp.xp is np else xp.astype(moved, dtype)
        return xp.reshape(moved, (moved.shape[0], -1))

    def work(self, flat: Array, block: Array, slopes: Array | None) -> Array | None:
        """Return memory in the layout of ``flat``, which is made of ``block``: of the gradient's, where it fits."""
        if self.xp.xp is not np:
            return None
        if flat.size and not np.may_share_memory(flat, block):
            return flat
        if slopes is None or self.order is not None or slopes.dtype != flat.dtype or not self.flat:
            return np.empty(flat.shape, flat.dtype)
        return slopes.reshape(flat.shape)

    def rows(self, x: Array) -> Array:
        """Return numbers of which a row has one; a number for all of them stays one."""
        if not self.flat or isinstance(x, int) or not x.ndim:
            return x
        return self.xp.reshape(x, (1, -1) if self.axis == 0 else (-1, 1))

    def classes(self, x: Array) -> Array:
        """Return numbers of which a class has one."""
        return self.xp.reshape(x, (-1, 1) if self.axis == 0 else (1, -1)) if self.flat else x

    def write(self, x: Array, slopes: Array) -> None:
        """Write a gradient of the layout to its block."""
        if self.order is not None:
            moved = [slopes.shape[i] for i in self.order]
            back = [self.order.index(i) for i in range(slopes.ndim)]
            x = self.xp.transpose(self.xp.reshape(x, tuple(moved)), tuple(back))
        elif self.flat:
            x = self.xp.reshape(x, slopes.shape)
            if self.xp.xp is np and np.may_share_memory(x, slopes):
                return
        slopes[...] = x
