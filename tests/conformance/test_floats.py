"""Rounding, ULPs and bytes hold against NumPy, ml_dtypes and exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from classweight.conformance.cases import TypedArray
from classweight.conformance.floats import FORMATS, pack, round_once, ulp, unpack

NATIVE: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}


def awkward(dtype: str, seed: int = 0) -> Any:
    """Return numbers of every size, ties, numbers beside ties, subnormals and the ends of the format."""
    f, rng = FORMATS[dtype], np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        x = np.ldexp(rng.normal(size=2000), rng.integers(f.min_exponent - 2 * f.precision, f.max_exponent + 2, 2000))
    exact = round_once(x, 0.0, dtype)[np.abs(x) < f.largest / 2]
    ties = exact + ulp(exact, dtype) / 2 if dtype != "float64" else exact
    beside = [np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)]
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, f.largest, f.smallest_normal, f.smallest_normal / 2]
    return np.concatenate([x, exact, ties, *beside, ends])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rounding_of_one_float64_is_numpys(dtype: str) -> None:
    x = awkward(dtype)
    with np.errstate(over="ignore", under="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    np.testing.assert_array_equal(round_once(x, 0.0, dtype), expected)


def test_rounding_of_float32_to_bfloat16_is_that_of_ml_dtypes() -> None:
    with np.errstate(over="ignore", under="ignore"):
        x = awkward("bfloat16").astype(np.float32)
    expected = x.astype(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(round_once(x, 0.0, "bfloat16"), expected)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_sum_of_two_is_rounded_to_the_nearest_with_ties_to_even(dtype: str) -> None:
    hi = awkward(dtype)
    hi = hi[np.isfinite(hi) & (hi != 0)]
    hi = hi[np.abs(hi) < np.finfo(np.float64).max]
    lo = np.spacing(np.abs(hi)) * np.random.default_rng(1).choice([-0.25, 0, 2.0**-40, -(2.0**-40)], hi.size)
    kept = hi + lo == hi
    hi, lo = hi[kept], lo[kept]
    result, step = round_once(hi, lo, dtype), ulp(hi, dtype)
    for r, h, low, u in zip(result.tolist(), hi.tolist(), lo.tolist(), step.tolist(), strict=True):
        if np.isinf(r):
            assert abs(h) >= FORMATS[dtype].largest
            continue
        off = 2 * abs(Fraction(r) - Fraction(h) - Fraction(low))
        assert off < Fraction(u) or (off == Fraction(u) and (r / u) % 2 == 0)


def test_a_half_type_is_not_rounded_through_float32() -> None:
    tie = 1 + 2.0**-11
    above = tie + 2.0**-40
    assert float(np.float16(np.float32(above))) == 1.0
    assert round_once(above, 0.0, "float16") == 1 + 2.0**-10
    assert round_once(tie, 0.0, "float16") == 1.0
    assert round_once(tie, 2.0**-60, "float16") == 1 + 2.0**-10


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ulp_is_numpys_spacing(dtype: str) -> None:
    x = np.abs(round_once(awkward(dtype), 0.0, dtype))
    x = x[x < FORMATS[dtype].largest]  # there NumPy's overflows
    np.testing.assert_array_equal(ulp(x, dtype), np.spacing(x.astype(dtype)).astype(np.float64))


@pytest.mark.parametrize("dtype", FORMATS)
def test_bytes_are_those_of_the_native_type_and_come_back(dtype: str) -> None:
    values = round_once(awkward(dtype), 0.0, dtype)
    values = values[: values.size // 4 * 4].reshape(-1, 2, 2)
    with np.errstate(invalid="ignore"):
        native = values.astype(NATIVE[dtype])
    data = pack(values, dtype)
    np.testing.assert_array_equal(
        np.frombuffer(data, NATIVE[dtype]).astype(np.float64), native.astype(np.float64).ravel()
    )
    np.testing.assert_array_equal(unpack(data, dtype, values.shape), values)


@pytest.mark.parametrize("dtype", [*FORMATS, "int64", "int8", "uint8", "bool"])
@pytest.mark.parametrize("form", ["to_json", "to_wire"])
def test_an_array_survives_both_of_its_forms(dtype: str, form: str) -> None:
    values = awkward(dtype)[-16:].reshape(4, 4) if dtype in FORMATS else np.arange(6).reshape(2, 3) % 2
    array = TypedArray.of(values, dtype)
    again = TypedArray.from_json(getattr(array, form)())
    assert (again.dtype, again.shape, again.values.dtype) == (dtype, array.shape, array.values.dtype)
    np.testing.assert_array_equal(again.values, array.values)
