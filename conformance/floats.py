"""Floating-point formats: correct single rounding, the size of an ULP, and little-endian bytes.

Values of every format are held as float64, which holds them exactly, so that bfloat16 needs no package of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Format:
    """A binary format: bits of the significand with the hidden one, and the exponent of the smallest normal number."""

    precision: int
    min_exponent: int
    max_exponent: int

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with all its bits."""
        return 2.0**self.min_exponent

    @property
    def eps(self) -> float:
        """The spacing at 1."""
        return 2.0 ** (1 - self.precision)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - self.eps) * 2.0**self.max_exponent


FORMATS = {
    "float16": Format(11, -14, 15),
    "bfloat16": Format(8, -126, 127),
    "float32": Format(24, -126, 127),
    "float64": Format(53, -1022, 1023),
}


def ulp(x: npt.ArrayLike, dtype: str) -> Float:
    """Return the spacing of the format at ``x``; below the smallest normal number that of the subnormal ones."""
    f = FORMATS[dtype]
    x = np.abs(np.asarray(x, np.float64))
    _, exponent = np.frexp(np.where(np.isfinite(x), x, 1.0))
    exponent = np.where(x == 0, f.min_exponent, np.clip(exponent - 1, f.min_exponent, f.max_exponent))
    return np.asarray(np.ldexp(1.0, exponent - f.precision + 1))


def round_once(hi: npt.ArrayLike, lo: npt.ArrayLike, dtype: str) -> Float:
    """Return ``hi + lo``, which float64 rounds to ``hi``, rounded once to the format: ties to even, overflow to inf.

    float64 is rounded to odd first: its last bit then says whether something was cut off, and no tie is made up.
    """
    hi, lo = np.broadcast_arrays(np.asarray(hi, np.float64), np.asarray(lo, np.float64))
    if dtype == "float64":
        return hi.copy()
    f = FORMATS[dtype]
    bits = np.ascontiguousarray(hi).reshape(hi.shape).view(np.int64)
    inexact_even = (lo != 0) & (bits & 1 == 0) & np.isfinite(hi)
    odd = np.where(inexact_even, bits + np.where((lo > 0) == (hi > 0), 1, -1), bits).view(np.float64)
    step = ulp(odd, dtype)
    near = np.rint(odd / step) * step
    return np.where(np.abs(near) > f.largest, np.copysign(np.inf, near), near)


def pack(values: npt.NDArray[Any], dtype: str) -> bytes:
    """Return the little-endian bytes of the values as ``dtype``, in C order; floats are rounded once."""
    if dtype == "bfloat16":
        bits = round_once(values, 0.0, dtype).astype("<f4").view("<u4")
        return (bits >> 16).astype("<u2").tobytes()
    return values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def unpack(data: bytes, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the values of little-endian bytes: floats as float64, integers as int64, bools as they are."""
    if dtype == "bfloat16":
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape).astype(np.float64)
    values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    return values.astype({"f": np.float64, "b": np.bool_}.get(values.dtype.kind, np.int64))
