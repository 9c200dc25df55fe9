"""How an array lies in memory: the same numbers apart, in columns, spread, or beyond what 32 bits address."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable
from typing import Any

LAYOUTS = ("columns", "steps", "spread", "far")
# Between numbers that lie apart: no float that counts, and no class.
GAP = 0x7F
# The last row of an array begins behind so many numbers.
FAR = 2**31
# Linux refuses more than there is, unless told that it will not be used; Python has no name for that.
NOT_COUNTED = 0x4000 if sys.platform == "linux" else 0


class NoSuchMemory(Exception):
    """Raised where a layout cannot be had."""


def laid_out(x: Any, layout: str, itemsize: int, cut: Callable[[Any, list[int] | None], Any]) -> Any:
    """Return the numbers of a NumPy array or a tensor in another layout.

    ``cut(buffer, strides)`` returns a buffer as an array of the type and shape of ``x``, flat without strides.
    """
    shape = tuple(x.shape)
    if not math.prod(shape) or not shape or (layout == "far" and (len(shape) < 2 or shape[0] < 2)):
        return x
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if layout == "columns":
        strides = [math.prod(shape[:axis]) for axis in range(len(shape))]
    elif layout == "steps":
        strides = [2 * stride for stride in strides]
    elif layout == "far":
        strides[0] = -(-FAR // (shape[0] - 1)) + 1
    elif bool((x == x[(0,) * len(shape)]).all()):
        strides = [0] * len(shape)
    size = itemsize * (1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)))
    buffer = _reserved(size) if layout == "far" else bytearray([GAP]) * size
    there = cut(buffer, strides)
    if any(strides):
        there[...] = x
    else:
        cut(buffer, None)[0] = x[(0,) * len(shape)]
    return there


def _reserved(size: int) -> mmap.mmap:
    """Return memory of which only what is touched is taken."""
    try:
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NOT_COUNTED)
    except (AttributeError, OSError, OverflowError) as problem:
        raise NoSuchMemory(f"memory of {size >> 30} GiB cannot be reserved: {problem}") from None
