"""Double-double arithmetic holds against mpmath to 2**-97."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from classweight.conformance import doubledouble as dd
from classweight.conformance.doubledouble import DoubleDouble

RNG = np.random.default_rng(0)
SMALL, LARGE = 10.0 ** RNG.uniform(-20, -1, 300), 10.0 ** RNG.uniform(-4, 5, 300)
NEGATIVE = -RNG.uniform(0, 290, 300)


def numbers(hi: Any) -> DoubleDouble:
    return DoubleDouble(hi, hi * RNG.uniform(-1, 1, hi.shape) * 2.0**-54)


def wide(x: DoubleDouble) -> list[Any]:
    return [mpf(hi) + mpf(lo) for hi, lo in zip(x.hi.ravel().tolist(), x.lo.ravel().tolist(), strict=True)]


@pytest.mark.parametrize(
    ("function", "exact", "x"),
    [
        (dd.exp, mp.exp, NEGATIVE),
        (dd.exp, mp.exp, -SMALL),
        (dd.expm1, mp.expm1, NEGATIVE),
        (dd.expm1, mp.expm1, -SMALL),
        (dd.log1p, mp.log1p, SMALL),
        (dd.log1p, mp.log1p, LARGE),
        (dd.log, mp.log, LARGE),
    ],
)
def test_functions(function: Callable[[DoubleDouble], DoubleDouble], exact: Any, x: Any) -> None:
    x = numbers(x)
    with mp.workdps(60):
        for found, argument in zip(wide(function(x)), wide(x), strict=True):
            expected = exact(argument)
            assert abs(found - expected) <= mpf(2) ** -97 * max(abs(expected), 1 if function is dd.log else 0)


@pytest.mark.parametrize("operation", ["__add__", "__sub__", "__mul__", "__truediv__"])
def test_operations(operation: str) -> None:
    x, y = numbers(LARGE), numbers(-SMALL)
    with mp.workdps(60):
        for found, a, b in zip(wide(getattr(x, operation)(y)), wide(x), wide(y), strict=True):
            expected = getattr(a, operation)(b)
            assert abs(found - expected) <= mpf(2) ** -100 * abs(expected)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_sum(n: int) -> None:
    x = numbers(RNG.normal(size=(3, n)))
    with mp.workdps(60):
        for i, found in enumerate(wide(x.sum())):
            terms = wide(x[i])
            assert abs(found - sum(terms)) <= mpf(2) ** -100 * (sum(map(abs, terms)) + mpf(10) ** -300)


def test_a_number_is_kept_to_its_last_bit_where_float64_loses_it() -> None:
    tiny = 2.0**-90
    assert ((DoubleDouble(1.0) + tiny) - 1.0).hi == tiny
    assert (DoubleDouble(1 + 2.0**-40) * (1 + 2.0**-40) - (1 + 2.0**-39)).hi == 2.0**-80
