"""Losses and their gradient in closed form over whole arrays: NumPy without a compiler, CuPy where it has no kernel.

Written over the array API standard, as the equations read. The formulas are those of `classweight.compute.composite`.
On the host all is computed in float64 and rounded once; kernels are what is fast there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..call import Call
from ..errors import refuse
from ..lowering import NAN, SoftmaxCoefficients, divided, inside_of, lower, summed, undivided, unless_empty
from .arrays import Array, ArrayFunctions
from .composite import clip, divides_first, divisor

Result = tuple[Array, Array | None]
Rows = Callable[[ArrayFunctions, Call, Any, Any], tuple[Array, Any]]


def loss_parts(xp: ArrayFunctions, call: Call, rows_of: Rows | None = None) -> tuple[Array, Array]:
    """Return the sum over positions and what a mean divides it by (1 for a sum), in float64."""
    c = lower(xp, call, _inside(xp, call))
    rows, _ = (rows_of or of_arrays)(xp, dataclasses.replace(call, spec=summed(call.spec)), undivided(c), None)
    denominator = 1.0 if c.denominator is None else c.denominator
    return xp.sum(xp.astype(rows, xp.wide)), xp.xp.asarray(denominator, dtype=xp.wide)


def loss_and_grad(
    xp: ArrayFunctions, call: Call, upstream: Any = None, *, gradient: bool = True, rows_of: Rows | None = None
) -> tuple[Array, Any]:
    """Return the loss and its gradient times ``upstream`` in the logits' type, each rounded once.

    ``rows_of`` makes rows and gradient of coefficients, which are divided already: a library may have kernels of its
    own.

    Raises
    ------
    ValueError
        An upstream gradient of another shape than the loss's.
    """
    c = lower(xp, call, _inside(xp, call))
    scale, of_one = scale_of(xp, call, upstream) if gradient else None, divided(xp, c)
    if scale is not None and c.denominator is not None:
        scale = scale / of_one.denominator
    rows, slopes = (rows_of or of_arrays)(xp, call, of_one, scale)
    if call.spec.reduction == "none":
        rows = xp.reshape(rows, call.loss_shape(xp))
    else:
        rows = xp.sum(xp.astype(rows, xp.wide))
        if c.denominator is not None:
            mean = rows / of_one.denominator
            rows = unless_empty(xp, call.spec.zero_denominator, mean, c.denominator)
    return round_once(xp, rows, call.logits.dtype), slopes


def scale_of(xp: ArrayFunctions, call: Call, upstream: Any) -> Array:
    """Return the upstream gradient as a wide array that broadcasts against the logits."""
    if upstream is None:
        return xp.ones((1,) * len(call.shape), call.logits)
    each = call.spec.reduction == "none"
    shape = call.loss_shape(xp) if each else ()
    scale = xp.asarray(upstream, call.logits, "upstream")
    if xp.kind(scale) == "other" or tuple(scale.shape) != shape:
        refuse("upstream", f"be real numbers of the loss's shape {shape}", f"{scale.dtype} of shape {scale.shape}")
    scale = xp.astype(scale, xp.wide)
    return xp.expand_dims(scale, call.position_axis) if each and call.position_axis is not None else scale


def of_arrays(xp: ArrayFunctions, call: Call, c: Any, scale: Array | None) -> tuple[Array, Any]:
    """Return the weighted row losses and, with a scale, the gradient times it."""
    spec, inside, eps = call.spec, _inside(xp, call), xp.eps(call.logits)
    z, gradient = xp.astype(call.logits, inside), scale is not None
    if isinstance(c, SoftmaxCoefficients):
        a = _dense_coefficients(xp, c, z)
        if spec.inputs == "logits":
            loss, slopes = softmax(xp, z, c.axis, a, gradient)
        elif spec.inputs == "log_probs":
            loss, slopes = log_probs(xp, z, c.axis, a, gradient)
        else:
            loss, slopes = probs(xp, z, c.axis, a, spec, eps, gradient)
    else:
        pos, neg = xp.astype(c.pos, inside), xp.astype(c.neg, inside)
        if spec.inputs == "logits":
            loss, slopes = binary(xp, z, pos, neg, gradient)
        else:
            loss, slopes = binary_probs(xp, z, pos, neg, spec, eps, gradient)
        loss = xp.sum(loss, z.ndim - 1) if spec.average_outputs else loss
    if slopes is None:
        return loss, None
    scale = xp.astype(scale, inside)
    slopes = xp.where((slopes == 0) | (scale == 0), 0.0, slopes * scale)  # nothing reaches an ignored row
    return loss, round_once(xp, slopes, call.logits.dtype)


def _inside(xp: ArrayFunctions, call: Call) -> Any:
    return xp.wide if xp.on_host else inside_of(xp, call.spec, call.logits.dtype)


def _dense_coefficients(xp: ArrayFunctions, c: SoftmaxCoefficients, z: Array) -> Array:
    """Return a_ic."""

    def product(rows: Array, classes: Array | None) -> Array:
        return xp.astype(rows if classes is None else rows * classes, z.dtype)

    if c.index is None:
        a = c.targets * product(c.alpha, c.column)
    else:
        alpha = product(c.alpha, None)
        a = xp.where(xp.positions(z.shape[c.axis], c.axis, z) == c.index, alpha, 0 * alpha)  # of a bad row all are NaN
    return a if c.beta is None else a + product(c.beta, c.row)


def softmax(xp: ArrayFunctions, z: Array, axis: int, a: Array, gradient: bool) -> Result:
    """Return ``sum_c a_ic L_ic`` and ``A_i q_ic - a_ic``, relative to the dominant class."""
    dominant = xp.argmax(z, axis)
    is_dominant = xp.positions(z.shape[axis], axis, z) == dominant
    top, own = xp.pick(z, dominant, axis), xp.pick(a, dominant, axis)
    excess = top - z  # NaN at a logit that is no finite number: so must the row be
    others = xp.sum(xp.where(is_dominant, excess, xp.exp(-excess)), axis)
    rest = xp.sum(xp.where(is_dominant, 0.0, a), axis)
    near = xp.sum(xp.where(a == 0, 0.0, a * excess), axis)
    weight, dead = rest + own, ~xp.any(a != 0, axis)
    loss = xp.where(dead, 0.0, weight * xp.log1p(others) + near)
    if not gradient:
        return loss, None
    scale = weight / (1 + others)
    # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
    at_dominant = xp.where(others < 1, rest - others * scale, scale - own)
    return loss, xp.where(dead, 0.0, xp.where(is_dominant, at_dominant, xp.exp(-excess) * scale - a))


def binary(xp: ArrayFunctions, z: Array, pos: Array, neg: Array, gradient: bool) -> Result:
    """Return ``pos softplus(-z) + neg softplus(z)`` and ``neg sigmoid(z) - pos sigmoid(-z)``."""
    positive, dead = z > 0, (pos == 0) & (neg == 0)
    e = xp.exp(-abs(z))
    tail = xp.log1p(e)
    loss = pos * xp.where(pos == 0, 0.0, xp.where(positive, tail, tail - z))
    loss += neg * xp.where(neg == 0, 0.0, xp.where(positive, tail + z, tail))
    loss = xp.where(dead, 0.0, loss)
    if not gradient:
        return loss, None
    large = 1 / (1 + e)
    small = e * large
    slopes = neg * xp.where(positive, large, small) - pos * xp.where(positive, small, large)
    return loss, xp.where(dead, 0.0, slopes)


def log_probs(xp: ArrayFunctions, z: Array, axis: int, a: Array, gradient: bool) -> Result:
    """Return ``-sum_c a_ic z_ic`` and ``-a_ic`` for log-probabilities."""
    loss = xp.sum(-a * xp.where(a == 0, 0.0, z), axis)
    return loss, -a if gradient else None


def probs(xp: ArrayFunctions, z: Array, axis: int, a: Array, spec: Any, eps: float, gradient: bool) -> Result:
    """Return ``-sum_c a_ic log p_ic`` for probabilities clipped and renormalized as the spec says."""
    dead = ~xp.any(a != 0, axis)
    u = xp.where(dead, 1.0, z)
    before = divisor(xp, xp.sum(u, axis)) if divides_first(spec) else None
    p = u if before is None else u / before
    clipped = clip(xp, p, spec.clip, eps)
    after = divisor(xp, xp.sum(clipped, axis)) if spec.renormalize == "after" and before is None else None
    final = clipped if after is None else clipped / after
    loss = xp.sum(-a * xp.where(a == 0, 0.0, xp.log(final)), axis)
    if not gradient:
        return loss, None
    g = xp.where(a == 0, 0.0, -a / _of_log(xp, clipped))
    if after is not None:
        g = g + xp.sum(a, axis) / after
    if spec.clip is not None:
        g = xp.where((clipped == p) | (p != p), g, 0.0)
    if before is not None:
        g = (g - xp.sum(xp.where(g == 0, 0.0, g * p), axis)) / before
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


def round_once(xp: ArrayFunctions, x: Array, dtype: Any) -> Array:
    """Return float64 as ``dtype``, rounded once; libraries go to a half type through float32, and round twice.

    A rounding to odd keeps in its last bit that something was cut off, so that the rounding that follows is the only
    one.
    """
    if x.dtype != xp.wide or dtype in (xp.wide, xp.float32):
        return xp.astype(x, dtype)
    near = xp.astype(x, xp.float32)
    bits = near.view(xp.xp.int32) if near.ndim else near.reshape((1,)).view(xp.xp.int32).reshape(())
    back = xp.astype(near, xp.wide)
    inexact_even = (back != x) & (bits & 1 == 0) & (x == x)
    step = xp.where(abs(back) < abs(x), 1, -1)
    odd = xp.astype(xp.where(inexact_even, bits + step, bits), xp.xp.int32)
    return xp.astype(odd.view(xp.float32), dtype)
