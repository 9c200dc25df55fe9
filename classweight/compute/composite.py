"""The row losses as plain differentiable operations, written once: what an autograd differentiates any number of times.

Everything is relative to the dominant class k = argmax z, so that nothing is computed as p - 1 or lse - z::

    L_c = log1p(R) + (z_k - z_c),     R = sum_{c != k} exp(z_c - z_k)

Both terms are >= 0, and of a sure prediction the term of k itself is cut out rather than cancelled, so the loss and
its gradient keep their relative accuracy at any confidence. ``where`` guards come before an infinity is multiplied by
0, for an autograd multiplies too.
"""

from __future__ import annotations

from typing import Any

from ..lowering import INF, NAN, SigmoidCoefficients, SoftmaxCoefficients
from ..spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from .arrays import Array, Arrays


def rows(
    xp: Arrays, spec: SoftmaxCrossEntropy | SigmoidCrossEntropy, z: Array, coefficients: Any, eps: float, dtype: Any
) -> Array:
    """Return the weighted losses of ``z``, which is of ``dtype``; ``eps`` is what clip="dtype" stands for."""
    if isinstance(spec, SoftmaxCrossEntropy):
        return _softmax(xp, spec, z, coefficients, eps, dtype)
    return _sigmoid(xp, spec, z, coefficients, eps, dtype)


def _softmax(xp: Arrays, spec: SoftmaxCrossEntropy, z: Array, c: SoftmaxCoefficients, eps: float, dtype: Any) -> Array:
    axis = c.axis
    alpha, beta = (None if x is None else xp.astype(counted(xp, c, x), dtype) for x in (c.alpha, c.beta))
    column, row = (None if x is None else xp.astype(x, dtype) for x in (c.column, c.row))

    # A row whose coefficients are all 0 is computed from ones, and then weighs 0, unless its loss is sure to be finite:
    # a weight of 0 has a gradient, which is that loss.
    if c.targets is None:
        dense = None
        alive = ~xp.equal(alpha, 0)
        if spec.inputs != "logits":  # whose slopes are of the target alone: of a bad row all shall be NaN
            z = unless(xp, ~((c.alpha >= 0) | (c.alpha < 0)), z)
    else:
        dense = alpha * c.targets if column is None else alpha * (c.targets * column)
        alive = xp.any(~xp.equal(dense, 0), axis)
    if beta is not None:
        shared = xp.broadcast_to(beta, z) if row is None else beta * row
        alive = alive | xp.any(~xp.equal(shared, 0), axis)
        if dense is not None:
            dense = dense + shared
    alive = alive | ~xp.any(~_is_inside(spec, z), axis) & _is_number(c)
    z = xp.where(alive, z, 1.0)

    own = cut = None
    if spec.inputs == "logits":
        base, excess, own, cut = _relative_to_dominant(xp, z, axis)
    else:
        if dense is not None:
            used = ~xp.equal(dense, 0)
        else:
            used = xp.equal(xp.positions(z.shape[axis], axis, z), c.index) & ~xp.equal(alpha, 0)
            used = used if beta is None else used | ~xp.equal(shared, 0)
        base, excess = _negative_log(xp, spec, z, axis, eps, used)

    def terms(a: Array) -> Array:
        total = xp.sum(_weighted(xp, a, excess), axis)
        if own is not None:
            # Not added to each term: the slope would be a sum that the framework makes, in the terms' own type.
            total = total + own * xp.sum(xp.where(cut, 0.0, a), axis)
        return total if base is None else total + xp.sum(a, axis) * base

    if dense is not None:
        return xp.where(alive, terms(dense), 0.0)
    loss = xp.pick(excess if own is None else xp.where(cut, 0.0, excess + own), c.index, axis)
    loss = loss if base is None else loss + base
    if beta is None:
        return xp.where(alive, _weighted(xp, alpha, loss), 0.0)
    return xp.where(alive, _weighted(xp, alpha, loss) + terms(shared), 0.0)


def _relative_to_dominant(xp: Arrays, z: Array, axis: int) -> tuple[Array, Array, Array, Array]:
    """Return L_k, z_k - z_c, the slope of z_k in the latter, and where that has none, for digits to be kept.

    Where q_k > 1/2, the gradient of z_k is summed over the other classes, and the entry at k is a constant 0. Elsewhere
    that sum would cancel: z_k only shifts, and its gradient is A q_k - a_k as any other class's.
    """
    dominant = xp.argmax(z, axis)
    is_dominant = xp.equal(xp.positions(z.shape[axis], axis, z), dominant)
    top = xp.pick(z, dominant, axis)
    # 0 with the slope of z_k. NaN where the largest logit is infinite or NaN: such a row has no softmax.
    own = top - xp.detach(top)
    excess = xp.detach(top) - z
    e, unit = scaled_exp(xp, -excess)
    others = xp.sum(xp.where(is_dominant, 0.0, e), axis)
    sure = xp.detach(others) < 1 / unit
    base = xp.where(sure, xp.log1p(_times(others * xp.exp(-own), unit)), xp.log(_times(others, unit) + xp.exp(own)))
    cut = is_dominant & sure
    return base, xp.where(cut, 0.0, excess), xp.where(sure, own, 0.0), cut


def scaled_exp(xp: Arrays, x: Array) -> tuple[Array, float]:
    """Return exp(x) / unit, and the unit: 1, or small where what is below the smallest normal number becomes 0.

    There a weight, an upstream gradient or a sum must bring such a term back among the normal numbers. Adding to ``x``
    would round it, so half of it is scaled, and squared.
    """
    if not xp.flushes or x.dtype == xp.wide:
        return xp.exp(x), 1.0
    half = xp.exp(x * 0.5) * 2.0**32
    return half * half, 2.0**-64


def _times(x: Array, unit: float) -> Array:
    return x if unit == 1 else x * unit


def _negative_log(
    xp: Arrays, spec: SoftmaxCrossEntropy, z: Array, axis: int, eps: float, used: Array
) -> tuple[Array | None, Array]:
    """Return -log of clipped and renormalized probabilities, finite where not ``used``, and what all of a row share."""
    if spec.inputs == "log_probs":
        return None, -z
    if divides_first(spec):
        z = z / divisor(xp, xp.sum(z, axis))
    z = clip(xp, z, spec.clip, eps)
    # Where a probability is not used, one whose loss is finite: a coefficient of 0 has a gradient, which is that loss.
    used = xp.where(used | ((z > 0) & (z < INF)), z, 1.0)
    excess = -_log(xp, used)
    if spec.renormalize != "after" or divides_first(spec):
        return None, excess
    return xp.log(divisor(xp, xp.sum(z, axis))), excess


def divides_first(spec: SoftmaxCrossEntropy) -> bool:
    """Whether probabilities are divided by their sum before a clip; without one, to do so before and after is one."""
    return spec.renormalize == "before" or (spec.renormalize == "after" and spec.clip is None)


def divisor(xp: Arrays, total: Array) -> Array:
    """Return the sums of rows, NaN where dividing by one does not make them add up to 1."""
    return unless(xp, xp.equal(total, 0) | ~is_finite(total), total)


def is_finite(x: Array) -> Array:
    """Return where a number is neither infinite nor NaN."""
    return (x > -INF) & (x < INF)


def unless(xp: Arrays, missing: Array, x: Array) -> Array:
    """Return ``x``, and NaN - its slope too - where a function of it does not exist."""
    return x * xp.astype(xp.where(missing, NAN, xp.ones((), x)), x.dtype)


def _log(xp: Arrays, p: Array) -> Array:
    """Return log p, NaN for p < 0; of -0, whose slope would be -inf, that of 0."""
    value = xp.detach(p)
    return xp.log(unless(xp, value < 0, xp.where(xp.equal(value, 0), p - value, p)))


def clip(xp: Arrays, p: Array, bounds: float | str | None, eps: float) -> Array:
    """Return the probabilities clipped to [bounds, 1 - bounds], constant where clipped."""
    if bounds is None:
        return p
    low = eps if bounds == "dtype" else float(bounds)
    return xp.where(p < low, low, xp.where(p > 1 - low, 1 - low, p))


def _sigmoid(xp: Arrays, spec: SigmoidCrossEntropy, z: Array, c: SigmoidCoefficients, eps: float, dtype: Any) -> Array:
    pos, neg = (xp.astype(counted(xp, c, x), dtype) for x in (c.pos, c.neg))
    alive = ~xp.equal(pos, 0) | ~xp.equal(neg, 0) | _is_inside(spec, z) & _is_number(c)
    z = xp.where(alive, z, 0.5)
    if spec.inputs == "logits":
        # softplus(z) = max(z, 0) + log1p(exp(-|z|)), with the right slope at 0.
        positive = z > 0
        e, unit = scaled_exp(xp, xp.where(positive, -z, z))
        tail = xp.log1p(_times(e, unit))
        loss_pos, loss_neg = tail + xp.where(positive, 0.0, -z), tail + xp.where(positive, z, 0.0)
    elif spec.inputs == "probs":
        p = clip(xp, z, spec.clip, eps)
        up = xp.where(~xp.equal(pos, 0) | ((p > 0) & (p < INF)), p, 0.5)
        down = xp.where(~xp.equal(neg, 0) | ((p > -INF) & (p < 1)), p, 0.5)
        loss_pos, loss_neg = -_log(xp, up), -xp.log1p(-unless(xp, down > 1, down))
    else:
        # log(1 - exp(z)): from the side that keeps its digits; each side sees an input at which it is finite.
        finite = xp.where(~xp.equal(neg, 0) | (z < 0), z, -0.5)
        near = finite > -0.6931471805599453
        far = -xp.log1p(-xp.exp(xp.where(near, -1.0, finite)))
        rest = -xp.expm1(xp.where(near, finite, -0.5))
        # Of 0, not of the -0 of which a slope would be -inf: a graph of TensorFlow rewrites 0 - x, and x + 0. There is
        # no log(1 - p) for p > 1.
        value = xp.detach(rest)
        rest = unless(xp, value < 0, rest + (abs(value) - value))
        loss_pos, loss_neg = -z, xp.where(near, -xp.log(rest), far)
    each = _weighted(xp, pos, loss_pos) + _weighted(xp, neg, loss_neg)
    each = xp.where(alive, each, 0.0)
    return xp.sum(each, len(z.shape) - 1) if spec.average_outputs else each


def counted(xp: Arrays, c: SoftmaxCoefficients | SigmoidCoefficients, coefficient: Array) -> Array:
    """Return the coefficient, 0 where the denominator is: the value then depends on nothing."""
    if c.denominator is None:
        return coefficient
    if isinstance(c.denominator, int | float):
        return coefficient if c.denominator else 0 * coefficient
    return xp.where(xp.equal(c.denominator, 0), 0.0, coefficient)


def _is_number(c: SoftmaxCoefficients | SigmoidCoefficients) -> Any:
    """Return where the denominator is not NaN, which would be the slope of a coefficient of 0, too."""
    return c.denominator is None or c.denominator == c.denominator


def _is_inside(spec: SoftmaxCrossEntropy | SigmoidCrossEntropy, z: Array) -> Array:
    """Return where no term can be infinite or NaN."""
    low, high = (0.0, 1.0) if spec.inputs == "probs" else (-INF, INF)
    if isinstance(spec, SigmoidCrossEntropy) and spec.inputs == "log_probs":
        high = 0.0
    return (low < z) & (z < high)


def _weighted(xp: Arrays, coefficient: Array, loss: Array) -> Array:
    """Return the product, 0 where the coefficient is 0 even if the loss is infinite."""
    return coefficient * xp.where(~xp.equal(coefficient, 0) | is_finite(loss), loss, 0.0)
