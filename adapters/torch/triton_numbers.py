"""Numbers for Triton's kernels: exponentials and logarithms that keep their digits, and a type's one rounding."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950216293335)  # in float32, and what is missing
LOG2_E_REST = tl.constexpr(1.92596298909109e-08)
TO_INTEGER = tl.constexpr(12582912.0)  # 1.5 * 2^23: what it is added to in float32 is rounded to an integer
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def exp(x, boost, HALF: tl.constexpr):
    """Return exp(x) 2^boost for x <= 0, 0 where that is no normal float32; of float64 exp(x).

    Triton's own exp of a float32 rounds x log2(e) to float32, 60 ULP away at x = -80: good enough for a half type.
    """
    if x.dtype == tl.float64:
        value = tl.exp(x)
    elif HALF:
        value = tl.exp2(x * LOG2_E + boost)
    else:
        rounded = tl.fma(x, LOG2_E, TO_INTEGER)
        part = tl.fma(x, LOG2_E_REST, tl.fma(x, LOG2_E, -(rounded - TO_INTEGER)))
        power = ((rounded + boost).to(tl.int32, bitcast=True) << 23) + 0x3F800000
        value = tl.where(x < -87.0 - boost * LN_2, 0.0, tl.exp2(part) * power.to(tl.float32, bitcast=True))
    return value


@triton.jit
def log1p(x):
    """Return log(1 + x) for x >= 0, with what the rounding of the sum cut off; Triton's log has no digits near 1."""
    more = 1.0 + x
    if x.dtype == tl.float64:
        value = tl.where(more == 1.0, x, tl.log(more) * (x / (more - 1.0)))
    else:
        # 1 + x = f 2^n with f from 1/sqrt(2) on, log f = 2 atanh((f - 1) / (f + 1)).
        bits = more.to(tl.int32, bitcast=True) - 0x3F3504F3
        n = bits >> 23
        f = ((bits & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)
        s = tl.div_rn(f - 1.0, f + 1.0)
        w = s * s
        series = s * w * (2 / 3 + w * (2 / 5 + w * (2 / 7 + w * (2 / 9))))
        value = 2.0 * s + (n.to(tl.float32) * LN_2 + (series + (x - (more - 1.0)) / more))
    return value


@triton.jit
def widened(x, dtype: tl.constexpr):
    """Return ``x`` as a wider type; the interpreter knows no way from bfloat16 but to float32."""
    return x.to(tl.float32).to(dtype) if x.dtype == tl.bfloat16 else x.to(dtype)


@triton.jit
def rounded_once(x, dtype: tl.constexpr):
    """Return ``x`` as ``dtype``, rounded once: float64 to a half type by way of a float32 rounded to odd."""
    if x.dtype == tl.float64 and (dtype == tl.float16 or dtype == tl.bfloat16):
        near = x.to(tl.float32)
        back, bits = near.to(tl.float64), near.to(tl.int32, bitcast=True)
        inexact_even = (back != x) & ((bits & 1) == 0) & (x == x)
        odd = tl.where(inexact_even, tl.where(tl.abs(back) < tl.abs(x), bits + 1, bits - 1), bits)
        value = odd.to(tl.float32, bitcast=True).to(dtype)
    else:
        value = x.to(dtype)
    return value


@triton.jit
def scaled(scale, REAL: tl.constexpr):
    """Return a float64 scale of exponentials as REAL, and their boost: what underflows may be weighted by thousands."""
    boosted = (tl.abs(scale) >= 1) & (tl.float32 == REAL)
    return (scale * tl.where(boosted, 2.0**-64, 1.0)).to(REAL), tl.where(boosted, 64.0, 0.0).to(REAL)


@triton.jit
def weighted(a, distance):
    """Return the product, 0 where the coefficient is 0 even if the distance is infinite."""
    return tl.where(a == 0, 0.0, a * distance)


@triton.jit
def exp_of_minus_abs(x, HALF: tl.constexpr):
    """Return exp(-abs(x)), with gradual underflow."""
    e = exp(-tl.abs(x), 32.0, HALF)
    return e if x.dtype == tl.float64 else e * 2.0**-32


@triton.jit
def against_target(own, largest, total, HALF: tl.constexpr):
    """Return of z_y and the others' largest and sum: the row's largest; R_y as float64 and S, relative to it; L_y."""
    BOOST: tl.constexpr = 0.0 if own.dtype == tl.float64 else 64.0  # R_y may be far below the smallest float32
    gap = own - largest
    boosted = exp(-tl.abs(gap), BOOST, HALF)
    e = boosted * 2.0**-BOOST
    dominant = (gap > 0) | (total == 0)
    top = tl.where(dominant, own, largest)
    # 0, but NaN where the largest logit is infinite: such a row has no softmax.
    nothing = top - top
    small = total.to(tl.float64) * boosted.to(tl.float64) * 2.0**-BOOST
    others = tl.where(dominant, small, total.to(tl.float64)) + nothing.to(tl.float64)
    excess = tl.where(dominant, total * e, total - 1.0 + e) + nothing
    loss = (log1p(excess) + (top - own)).to(tl.float64)
    return top, others, 1.0 + excess, tl.where(dominant & (small < 2.0**-60), small + nothing.to(tl.float64), loss)
