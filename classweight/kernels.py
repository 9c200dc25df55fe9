"""Row losses and their gradient in closed form, for array libraries without an autograd: NumPy, CuPy, Chainer's arrays.

Three kernels over the array API standard. Each takes inputs and coefficients of one floating type and returns the
weighted row losses and, if asked, d loss / d input. The formulas are those of `composite`.
"""

from __future__ import annotations

from typing import Any

from ._arrays import Array, ArrayFunctions
from .composite import clip

Result = tuple[Array, Array | None]


def hard(xp: ArrayFunctions, z: Array, axis: int, index: Array, alpha: Array, gradient: bool) -> Result:
    """Return ``alpha_i L_iy`` and ``alpha_i (q_i - [c = y])``, with q_y - 1 as -R_y / S."""
    top, target = xp.max(z, axis), xp.pick(z, index, axis)
    e = xp.put(xp.exp(z - top), index, 0.0, axis)
    others, own = xp.sum(e, axis), xp.exp(target - top)
    total = others + own
    loss = alpha * (xp.where(target == top, xp.log1p(others), xp.log(total)) + (top - target))
    loss = xp.where(alpha == 0, 0.0, loss)
    if not gradient:
        return loss, None
    scale = alpha / total
    e *= scale
    return loss, xp.zero_where(alpha == 0, xp.put(e, index, -others * scale, axis))


def dense(xp: ArrayFunctions, z: Array, axis: int, a: Array, gradient: bool) -> Result:
    """Return ``sum_c a_ic L_ic`` and ``A_i q_ic - a_ic``, with the care of `hard` for the dominant class.

    ``a`` is written over.
    """
    dominant = xp.argmax(z, axis)
    excess = xp.pick(z, dominant, axis) - z
    # The dominant logit's own difference is 0, and NaN where that logit is no number: so must the row be.
    own, at_top = xp.pick(excess, dominant, axis), xp.pick(a, dominant, axis)
    e, a = xp.put(xp.exp(-excess), dominant, 0.0, axis), xp.put(a, dominant, 0.0, axis)
    others, rest = xp.sum(e, axis), xp.sum(a, axis)
    weight = rest + at_top
    loss = weight * xp.log1p(others) + xp.sum(a * xp.where(a == 0, 0.0, excess), axis)
    loss = xp.where(weight == 0, 0.0, loss + own)
    if not gradient:
        return loss, None
    scale = weight / (1 + others + own)
    # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
    at_dominant = xp.where(others < 1, rest - others * scale, scale - at_top)
    e *= scale
    e -= a
    return loss, xp.zero_where(weight == 0, xp.put(e, dominant, at_dominant, axis))


def binary(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, gradient: bool) -> Result:
    """Return ``pos softplus(-z) + neg softplus(z)`` and ``neg sigmoid(z) - pos sigmoid(-z)``."""
    positive, dead = z > 0, (pos == 0) & (neg == 0)
    e = xp.exp(xp.where(positive, -z, z))
    tail = xp.log1p(e)
    loss = pos * xp.where(pos == 0, 0.0, xp.where(positive, tail, tail - z))
    loss = loss + neg * xp.where(neg == 0, 0.0, xp.where(positive, tail + z, tail))
    loss = xp.where(dead, 0.0, loss)
    if not gradient:
        return loss, None
    large, small = 1 / (1 + e), e / (1 + e)
    g = xp.where(positive, neg * large - pos * small, neg * small - pos * large)
    return loss, xp.where(dead, 0.0, g)


def log_probs(xp: ArrayFunctions, z: Array, axis: int, a: Array, gradient: bool) -> Result:
    """Return ``-sum_c a_ic z_ic`` and ``-a_ic`` for log-probabilities."""
    loss = xp.sum(-a * xp.where(a == 0, 0.0, z), axis)
    return loss, -a if gradient else None


def probs(xp: ArrayFunctions, z: Array, axis: int, a: Array, spec: Any, eps: float, gradient: bool) -> Result:
    """Return ``-sum_c a_ic log p_ic`` for probabilities clipped and renormalized as the spec says."""
    dead = ~xp.any(a != 0, axis)
    u = xp.where(dead, 1.0, z)
    before = xp.sum(u, axis) if spec.renormalize == "before" else None
    p = u if before is None else u / before
    clipped = clip(xp, p, spec.clip, eps)
    after = xp.sum(clipped, axis) if spec.renormalize == "after" else None
    final = clipped if after is None else clipped / after
    loss = xp.sum(-a * xp.where(a == 0, 0.0, xp.log(final)), axis)
    if not gradient:
        return loss, None
    g = xp.where(a == 0, 0.0, -a / clipped)
    if after is not None:
        g = g + xp.sum(a, axis) / after
    if spec.clip is not None:
        g = xp.where(clipped == p, g, 0.0)
    if before is not None:
        g = (g - xp.sum(xp.where(g == 0, 0.0, g * p), axis)) / before
    return loss, xp.where(dead, 0.0, g)


def binary_probs(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, spec: Any, eps: float, gradient: bool) -> Result:
    """Return ``-pos log p - neg log(1 - p)`` for probabilities or, by ``spec.inputs``, their logarithms."""
    dead = (pos == 0) & (neg == 0)
    z = xp.where(dead, 0.5, z)
    if spec.inputs == "probs":
        p = clip(xp, z, spec.clip, eps)
        log_p, log_not = xp.log(p), xp.log1p(-p)
        slope_pos, slope_neg = 1 / p, 1 / (1 - p)
    else:
        near = z > -0.6931471805599453
        log_p = z
        not_p = 0 - xp.expm1(z)  # never the -0 of which a slope would be -inf
        log_not = xp.where(near, xp.log(not_p), xp.log1p(-xp.exp(z)))
        slope_pos, slope_neg = 1.0, xp.exp(z) / not_p
    loss = -pos * xp.where(pos == 0, 0.0, log_p) - neg * xp.where(neg == 0, 0.0, log_not)
    loss = xp.where(dead, 0.0, loss)
    if not gradient:
        return loss, None
    g = xp.where(neg == 0, 0.0, neg * slope_neg) - xp.where(pos == 0, 0.0, pos * slope_pos)
    if spec.inputs == "probs" and spec.clip is not None:
        g = xp.where(p == z, g, 0.0)
    return loss, xp.where(dead, 0.0, g)
