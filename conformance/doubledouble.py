"""Double-double arithmetic on NumPy arrays: 106 bits as an unevaluated sum hi + lo, good to about 2**-97.

What float64 cannot judge: whether a float64 computation was rounded once. Finite values only.

T. J. Dekker, A floating-point technique for extending the available precision, 1971.
Y. Hida, X. S. Li and D. H. Bailey, Library for double-double and quad-double arithmetic, 2007.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded sum and its exact error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def quick_two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded sum and its exact error for ``|a| >= |b|``."""
    s = a + b
    return s, b - (s - a)


def two_prod(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded product and its exact error."""
    p = a * b
    a_hi, a_lo = _split(a)
    b_hi, b_lo = _split(b)
    return p, ((a_hi * b_hi - p) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


def _split(a: Any) -> tuple[Any, Any]:
    t = 134217729.0 * a  # 2**27 + 1
    hi = t - (t - a)
    return hi, a - hi


class DoubleDouble:
    """An array of numbers ``hi + lo`` with ``hi`` the sum as float64 rounds it."""

    __slots__ = ("hi", "lo")

    def __init__(self, hi: Any, lo: Any = 0.0) -> None:
        self.hi: Float = np.asarray(hi, np.float64)
        self.lo: Float = np.broadcast_to(np.asarray(lo, np.float64), self.hi.shape)

    @classmethod
    def of(cls, x: Any) -> DoubleDouble:
        """Return a number as it is, or a float64 as one."""
        return x if isinstance(x, DoubleDouble) else cls(x)

    @classmethod
    def from_fraction(cls, x: Fraction) -> Self:
        """Return a fraction, rounded."""
        hi = float(x)
        return cls(hi, float(x - Fraction(hi)))

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.hi, -self.lo)

    def __add__(self, other: Any) -> DoubleDouble:
        other = DoubleDouble.of(other)
        s, e = two_sum(self.hi, other.hi)
        t, f = two_sum(self.lo, other.lo)
        s, e = quick_two_sum(s, e + t)
        return DoubleDouble(*quick_two_sum(s, e + f))

    def __sub__(self, other: Any) -> DoubleDouble:
        return self + -DoubleDouble.of(other)

    def __mul__(self, other: Any) -> DoubleDouble:
        other = DoubleDouble.of(other)
        p, e = two_prod(self.hi, other.hi)
        return DoubleDouble(*quick_two_sum(p, e + (self.hi * other.lo + self.lo * other.hi)))

    def __truediv__(self, other: Any) -> DoubleDouble:
        divisor = DoubleDouble.of(other)
        first = self.hi / divisor.hi
        rest = self - divisor * first
        second = rest.hi / divisor.hi
        third = (rest - divisor * second).hi / divisor.hi
        return DoubleDouble(*quick_two_sum(first, second)) + third

    def __getitem__(self, key: Any) -> DoubleDouble:
        return DoubleDouble(self.hi[key], self.lo[key])

    def scaled(self, exponent: Any) -> DoubleDouble:
        """Return the number times 2 to a power."""
        return DoubleDouble(np.ldexp(self.hi, exponent), np.ldexp(self.lo, exponent))

    def where(self, condition: Any, other: Any) -> DoubleDouble:
        """Return the number where the condition holds, else ``other``."""
        other = DoubleDouble.of(other)
        return DoubleDouble(np.where(condition, self.hi, other.hi), np.where(condition, self.lo, other.lo))

    def pick(self, index: Any) -> DoubleDouble:
        """Return the entries at ``index`` along the last axis."""
        return DoubleDouble(np.take_along_axis(self.hi, index, -1), np.take_along_axis(self.lo, index, -1))

    def sum(self) -> DoubleDouble:
        """Return the sum along the last axis, which is kept with length 1."""
        x = self
        while (n := x.hi.shape[-1]) > 1:
            half = n // 2
            total = x[..., :half] + x[..., half : 2 * half]
            odd = x[..., 2 * half :]
            x = DoubleDouble(*(np.concatenate(pair, -1) for pair in ((total.hi, odd.hi), (total.lo, odd.lo))))
        return x if n else DoubleDouble(np.zeros((*self.hi.shape[:-1], 1)))


_LN2 = DoubleDouble(0.6931471805599453, 2.3190468138462996e-17)
_INVERSE_FACTORIALS = [DoubleDouble.from_fraction(Fraction(1, factorial(n))) for n in range(9)]


def _reduced(x: DoubleDouble) -> tuple[DoubleDouble, Any]:
    """Return s and k with exp(x) = (1 + s) 2**k, k = 0 for |x| < ln(2) / 2."""
    k = np.rint(x.hi / _LN2.hi)
    r = (x - _LN2 * k).scaled(-9)
    # Terms from r**5 on are below 2**-48 of the first, so float64 does for them.
    c = _INVERSE_FACTORIALS
    tail = c[5].hi + r.hi * (c[6].hi + r.hi * (c[7].hi + r.hi * c[8].hi))
    s = r * (r * (r * (r * (r * tail + c[4]) + c[3]) + c[2]) + 1.0)
    for _ in range(9):
        s = s * (s + 2.0)
    return s, k.astype(np.int64)


def exp(x: DoubleDouble) -> DoubleDouble:
    """Return e to the x, for x from -700 to 700."""
    s, k = _reduced(x)
    return (s + 1.0).scaled(k)


def expm1(x: DoubleDouble) -> DoubleDouble:
    """Return exp(x) - 1 with its relative accuracy near 0."""
    s, k = _reduced(x)
    return s.where(k == 0, (s + 1.0).scaled(k) - 1.0)


def log1p(x: DoubleDouble) -> DoubleDouble:
    """Return log(1 + x) for x >= 0: one Newton step from float64's."""
    y = DoubleDouble(np.log1p(x.hi))
    t = expm1(y)
    return y - (t - x) / (t + 1.0)


def log(x: DoubleDouble) -> DoubleDouble:
    """Return log(x) for x > 0, good to 2**-98 of the larger of 1 and the result."""
    y = DoubleDouble(np.log(x.hi))
    e = exp(y)
    return y + (x - e) / e
