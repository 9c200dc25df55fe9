"""Row losses and their gradient in closed form, for array libraries without an autograd: NumPy, CuPy, Chainer's arrays.

Kernels over the array API standard. Each takes inputs of one floating type and returns the weighted row losses - but
`hard`, which leaves its losses to be weighted - and, if asked, d loss / d input. The formulas are those of `composite`.
"""

from __future__ import annotations

import math
from typing import Any

from ..lowering import NAN
from .arrays import Array, ArrayFunctions, Entries
from .composite import clip, divides_first, divisor

Result = tuple[Array, Array | None]

LIMIT = {4: 87.0, 8: 708.0}
"""The largest loss that a ratio of normal numbers holds, of 4 bytes and of 8."""
SMALL = 32.0
"""Sums over billions of exp(z) are normal numbers of float32 for all |z| up to this, and so are their quotients."""


def hard(xp: ArrayFunctions, z: Array, axis: int, index: Array, coefficient: Array | None, out: Array | None) -> Result:
    """Return ``L_iy``, not weighted, and ``coefficient_i (q_i - [c = y])``, with q_y - 1 as -R_y / S.

    Weights are applied in float64, where none is too small or too large. ``out``, which may be ``z``, is written over.
    """
    at = Entries(xp, z, index, axis)
    target, (shift, small) = at.get(z), _shift(xp, z, axis)
    x = z if shift is None else xp.subtract(z, shift, out)
    e = xp.exp_of(x, out)
    own = at.get(e)
    e = at.put(e, 0.0)
    others = _sum(xp, e, axis)
    total = others + own
    loss = xp.log1p(others / own) if small is not None else None
    if shift is not None:
        gap = shift - target
        shifted = xp.where(gap == 0, xp.log1p(others), xp.log(total)) + gap
        loss = shifted if loss is None else xp.where(small, loss, shifted)
    if coefficient is None:
        return loss, None
    scale = xp.astype(coefficient / total, e.dtype)
    e *= scale
    e = at.put(e, -others * scale)
    return loss, xp.clear(e, coefficient == 0) if may_be_infinite(xp, total) else e


def _shift(xp: ArrayFunctions, z: Array, axis: int) -> tuple[Array | None, Any]:
    """Return what to subtract from each row before exp, None for nothing; and the rows whose logits are all small.

    Those need no subtraction, and the host looks, for then the passes of a row's maximum and of the difference are
    saved, and a rounding. What is subtracted from a row depends on that row alone.
    """
    if not xp.on_host:
        return xp.max(z, axis), None
    if not z.size or (xp.min(z) >= -SMALL and xp.max(z) <= SMALL):
        return None, True
    top = xp.max(z, axis)
    small = (xp.min(z, axis) >= -SMALL) & (top <= SMALL)
    return xp.where(small, 0.0, top), small


def dense(xp: ArrayFunctions, z: Array, axis: int, a: Array, gradient: bool, out: Array | None) -> Result:
    """Return ``sum_c a_ic L_ic`` and ``A_i q_ic - a_ic``, with the care of `hard` for the dominant class.

    ``a`` and ``out``, which may be ``z``, are written over.
    """
    at = Entries(xp, z, xp.argmax(z, axis), axis)
    excess = xp.subtract(at.get(z), z, out)
    # The dominant logit's own difference is 0, and NaN where that logit is no number: so must the row be.
    own, at_top = at.get(excess), at.get(a)
    a = at.put(a, 0.0)
    rest = _sum(xp, a, axis)
    near = _sum(xp, a * excess, axis)
    if may_be_infinite(xp, near):
        near = _sum(xp, a * xp.where(a == 0, 0.0, excess), axis)
    excess *= -1.0
    e = at.put(xp.exp_of(excess, excess), 0.0)
    others, weight = _sum(xp, e, axis), rest + at_top
    dead = weight == 0
    if not xp.on_host or xp.any(dead):  # coefficients of both signs may add up to 0, too
        dead &= ~xp.any(a != 0, axis) & (at_top == 0)
    loss = xp.clear(weight * xp.log1p(others) + near + own, dead)
    if not gradient:
        return loss, None
    scale = weight / (1 + others + own)
    # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
    at_dominant = xp.where(others < 1, rest - others * scale, scale - at_top)
    e *= scale
    e -= a
    return loss, xp.clear(at.put(e, at_dominant), dead)


def binary(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, gradient: bool) -> Result:
    """Return ``pos softplus(-z) + neg softplus(z)`` and ``neg sigmoid(z) - pos sigmoid(-z)``.

    The host looks for large logits, for where there are none it needs no `where`, which takes it longer than an exp. An
    element's numbers depend on that element alone.
    """
    if not xp.on_host:
        return _binary(xp, z, pos, neg, gradient)
    if not z.size or (xp.min(z) >= -SMALL and xp.max(z) <= SMALL):
        return _binary_of_small(xp, z, pos, neg, gradient)
    small = abs(z) <= SMALL
    loss, slope = _binary(xp, z, pos, neg, gradient)
    of_small, its_slope = _binary_of_small(xp, xp.where(small, z, 0.0), pos, neg, gradient)
    return xp.where(small, of_small, loss), xp.where(small, its_slope, slope) if gradient else None


def _binary_of_small(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, gradient: bool) -> Result:
    up, down = xp.exp(z), xp.exp(-z)
    loss = pos * xp.log1p(down)
    loss += neg * xp.log1p(up)
    if not gradient:
        return loss, None
    down = 1 / (1 + up)
    up *= down
    up *= neg
    up -= pos * down
    return loss, up


def _binary(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, gradient: bool) -> Result:
    positive = z > 0
    e = xp.exp(-abs(z))
    tail = xp.log1p(e)
    loss = pos * xp.where(positive, tail, tail - z) + neg * xp.where(positive, tail + z, tail)
    infinite = may_be_infinite(xp, loss)
    if infinite:
        loss = pos * xp.where(pos == 0, 0.0, xp.where(positive, tail, tail - z))
        loss += neg * xp.where(neg == 0, 0.0, xp.where(positive, tail + z, tail))
        dead = (pos == 0) & (neg == 0)
        loss = xp.where(dead, 0.0, loss)
    if not gradient:
        return loss, None
    large = 1 / (1 + e)
    e *= large
    g = neg * xp.where(positive, large, e)
    g -= pos * xp.where(positive, e, large)
    return loss, xp.where(dead, 0.0, g) if infinite else g


def may_be_infinite(xp: ArrayFunctions, x: Array) -> bool:
    """Whether an entry may be infinite or NaN, and a row must be cleared whose coefficients are 0."""
    return not xp.on_host or not math.isfinite(xp.sum(x))


def _sum(xp: ArrayFunctions, x: Array, axis: int) -> Array:
    """Return the sum, for which the bits of a row do not depend on how many others there are.

    Class by class NumPy adds in order, a single row in pairs.
    """
    if axis == 0 and xp.on_host and x.shape[1:] == (1,):
        return xp.sum(x * xp.astype(xp.ones((1, 2), x), x.dtype), 0)[:, :1]
    return xp.sum(x, axis)


def log_probs(xp: ArrayFunctions, z: Array, axis: int, a: Array, gradient: bool) -> Result:
    """Return ``-sum_c a_ic z_ic`` and ``-a_ic`` for log-probabilities."""
    loss = _sum(xp, -a * xp.where(a == 0, 0.0, z), axis)
    return loss, -a if gradient else None


def probs(xp: ArrayFunctions, z: Array, axis: int, a: Array, spec: Any, eps: float, gradient: bool) -> Result:
    """Return ``-sum_c a_ic log p_ic`` for probabilities clipped and renormalized as the spec says."""
    dead = ~xp.any(a != 0, axis)
    u = xp.where(dead, 1.0, z)
    before = divisor(xp, _sum(xp, u, axis)) if divides_first(spec) else None
    p = u if before is None else u / before
    clipped = clip(xp, p, spec.clip, eps)
    after = divisor(xp, _sum(xp, clipped, axis)) if spec.renormalize == "after" and before is None else None
    final = clipped if after is None else clipped / after
    loss = _sum(xp, -a * xp.where(a == 0, 0.0, xp.log(final)), axis)
    if not gradient:
        return loss, None
    g = xp.where(a == 0, 0.0, -a / _of_log(xp, clipped))
    if after is not None:
        g = g + _sum(xp, a, axis) / after
    if spec.clip is not None:
        g = xp.where((clipped == p) | (p != p), g, 0.0)
    if before is not None:
        g = (g - _sum(xp, xp.where(g == 0, 0.0, g * p), axis)) / before
    return loss, xp.where(dead, 0.0, g)


def _of_log(xp: ArrayFunctions, p: Array) -> Array:
    """Return what the slope of log p divides by, NaN where there is no log p."""
    return xp.where(p < 0, NAN, abs(p))


def binary_probs(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, spec: Any, eps: float, gradient: bool) -> Result:
    """Return ``-pos log p - neg log(1 - p)`` for probabilities or, by ``spec.inputs``, their logarithms."""
    dead = (pos == 0) & (neg == 0)
    z = xp.where(dead, 0.5, z)
    if spec.inputs == "probs":
        p = clip(xp, z, spec.clip, eps)
        log_p, log_not = xp.log(p), xp.log1p(-p)
        slope_pos, slope_neg = 1 / _of_log(xp, p), 1 / _of_log(xp, 1 - p)
    else:
        near = z > -0.6931471805599453
        log_p = z
        not_p = xp.where(z > 0, NAN, 0 - xp.expm1(z))  # never the -0 of which a slope would be -inf
        log_not = xp.where(near, xp.log(not_p), xp.log1p(-xp.exp(z)))
        slope_pos, slope_neg = 1.0, xp.exp(z) / not_p
    loss = -pos * xp.where(pos == 0, 0.0, log_p) - neg * xp.where(neg == 0, 0.0, log_not)
    loss = xp.where(dead, 0.0, loss)
    if not gradient:
        return loss, None
    g = xp.where(neg == 0, 0.0, neg * slope_neg) - xp.where(pos == 0, 0.0, pos * slope_pos)
    if spec.inputs == "probs" and spec.clip is not None:
        g = xp.where((p == z) | (z != z), g, 0.0)
    return loss, xp.where(dead, 0.0, g)
