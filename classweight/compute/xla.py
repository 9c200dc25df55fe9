"""A loss of logits in closed form as two halves, its value and its slopes, for frameworks that compile or record them.

Written, like `composite`, over the array functions. Where a runtime makes 0 of a number below the smallest normal one,
exponentials are scaled; sums and weights of a row are float64.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..call import Call
from ..lowering import INF, NAN, SigmoidCoefficients, lower, reduce
from .arrays import Array, Arrays
from .composite import counted, scaled_exp

Saved = tuple[Array, ...]


class HalvesArrays(Arrays, Protocol):
    """What more a framework offers here."""

    recomputes_exp: bool
    """Whether exponentials are made again for the slopes, in one pass with them, rather than saved."""

    def max(self, x: Array, axis: int) -> Array:
        """Return the largest value."""

    def sum_in_type(self, x: Array, axis: int) -> Array:
        """Return the sum in the terms' own type."""

    def wide_sum(self, x: Array, axis: int) -> Array:
        """Return the sum in float64."""

    def entries(self, x: Array, index: Array, axis: int) -> Array:
        """Return the entries at ``index`` along ``axis``, as `pick` does; nothing is differentiated."""

    def with_entries(self, x: Array, index: Array, values: Array | None, axis: int) -> Array:
        """Return ``x`` with 0 at ``index`` along ``axis``, or with ``values`` where that was done."""

    def isnan(self, x: Array) -> Array:
        """Return where ``x`` is NaN."""

    def weighted(self, losses: Array, alpha: Array) -> Array:
        """Return the product, 0 where the weight is 0, and so its slope whatever is upstream."""

    def times(self, x: Array, rows: Array) -> Array:
        """Return the product, 0 where the row's factor is 0."""


class Compiled:
    """What frameworks share that compile a half as a whole."""

    recomputes_exp = True

    def times(self: Any, x: Array, rows: Array) -> Array:
        """Return the product, 0 where the row's factor is 0."""
        # To choose by row would keep XLA from vectorising the rest.
        product = x * rows
        return self.where(self.isnan(product), self.where(self.equal(rows, 0), rows, rows * NAN), product)


def halves_of(xp: HalvesArrays, call: Call, inside: Any) -> Hard | Dense | Binary:
    """Return the halves of a checked call on logits, computed in ``inside``."""
    return halves_of_coefficients(xp, call, lower(xp, call, inside), inside)


def halves_of_coefficients(xp: HalvesArrays, call: Call, c: Any, inside: Any) -> Hard | Dense | Binary:
    """Return the halves of a call whose coefficients are known."""
    if isinstance(c, SigmoidCoefficients):
        return Binary(xp, call, c, inside)
    return (Hard if c.index is not None and c.beta is None else Dense)(xp, call, c, inside)


def _whole(xp: HalvesArrays, *rows: Array) -> Any:
    """Return numbers of rows, those of whole ones where an array has some of a row's entries alone."""
    return xp.whole(*rows) if hasattr(xp, "whole") else rows


class _Halves:
    """The coefficients of a call."""

    def __init__(self, xp: HalvesArrays, call: Call, c: Any, inside: Any) -> None:
        self.xp, self.call, self.c, self.inside = xp, call, c, inside
        self.unit = 2.0**-64 if xp.flushes and inside != xp.wide else 1.0

    def logits(self) -> Array:
        return self.xp.astype(self.call.logits, self.inside)

    def coefficient(self, x: Array) -> Array:
        return self.xp.astype(counted(self.xp, self.c, x), self.inside)

    def reduced(self, rows: Array) -> Array:
        """Return the loss, of weighted ones."""
        return reduce(self.xp, self.call, rows, self.c.denominator)

    def exp(self, x: Array) -> Array:
        """Return exp(x) / unit."""
        return scaled_exp(self.xp, x)[0]

    def of_finite(self, x: Array, top: Array) -> Array:
        """Return ``x``, NaN where the largest logit is infinite or NaN: such a row has no softmax."""
        return self.xp.where(abs(top) < INF, x, NAN)

    def scaled(self, e: Array, scale: Array) -> Array:
        """Return the exponentials times the rows' scale, with their unit; 0 where the scale is 0."""
        xp = self.xp
        if self.unit == 1:
            return xp.times(e, xp.astype(scale, self.inside))
        # The unit joins the scale unless float32 does not hold the product.
        joins = abs(scale) >= 2.0**-62
        g = xp.times(e, xp.astype(xp.where(joins, scale * self.unit, scale), self.inside))
        rest = xp.where(joins, 1.0, 0 * scale + self.unit)  # an array, for not every `where` takes two numbers
        return g * xp.astype(rest, self.inside)


class Hard(_Halves):
    """Index targets without smoothing: losses are not weighted yet. Names as in `classweight.kernels`."""

    def losses(self) -> tuple[Array, Saved]:
        """Return -log q_y in float64, and what the slopes need: max z, R_y, S of each row."""
        xp, z, axis, index = self.xp, self.logits(), self.c.axis, self.c.index
        top = xp.max(z, axis)
        e = self._others(z, top)
        target, others = _whole(xp, xp.entries(z, index, axis), xp.astype(xp.sum_in_type(e, axis), xp.wide))
        others = self.of_finite(others * self.unit, top)
        total = others + xp.astype(xp.exp(target - top), xp.wide)
        near, far = xp.log1p(xp.astype(others, self.inside)), xp.log(xp.astype(total, self.inside))
        loss = xp.astype(xp.where(xp.equal(target, top), near, far), xp.wide)
        if self.inside != xp.wide:  # float32 does not hold every R_y
            loss = xp.where(others < 2.0**-13, others * (1 - others / 2), loss)
        loss = loss + (xp.astype(top, xp.wide) - xp.astype(target, xp.wide))
        return loss, (loss, top, others, total) if xp.recomputes_exp else (loss, top, others, total, e)

    def value(self, losses: Array) -> Array:
        """Return the wide loss."""
        return self.reduced(self.xp.weighted(losses, counted(self.xp, self.c, self.c.alpha)))

    def linearised_at(self, saved: Saved) -> Array:
        """Return losses at which `value` has the right slope."""
        return saved[0]

    def slopes(self, upstream: Array, saved: Saved) -> Array:
        """Return ``upstream_i (q_ic - [c = y_i])``; a row whose upstream is 0 is 0."""
        xp = self.xp
        _, top, others, total, *e = saved
        scale = xp.where(xp.equal(upstream, 0), 0.0, upstream / total)
        at_target = xp.astype(xp.times(-others, scale), self.inside)
        g = self.scaled(e[0] if e else self._others(self.logits(), top), scale)
        return xp.with_entries(g, self.c.index, at_target, self.c.axis)

    def _others(self, z: Array, top: Array) -> Array:
        return self.xp.with_entries(self.exp(z - top), self.c.index, None, self.c.axis)


class Dense(_Halves):
    """Distributions and smoothing.

    Of classes that tie for the largest logit, each is the dominant one, k, and R_k counts the others.
    """

    def losses(self) -> tuple[Array, Saved]:
        """Return sum a_c (-log q_c) in float64, and max z, R_k, and the sums of a, of |a| and of a without a_k."""
        xp, z, a, axis = self.xp, self.logits(), self._coefficients(), self.c.axis
        top = xp.max(z, axis)
        is_top = xp.equal(z, top)
        e = xp.where(is_top, 0.0, self.exp(z - top))
        others, ties, weight, rest, near, size = _whole(
            xp,
            xp.wide_sum(e, axis),
            xp.wide_sum(xp.astype(is_top, self.inside), axis),
            xp.wide_sum(a, axis),
            xp.wide_sum(xp.where(is_top, 0.0, a), axis),
            xp.wide_sum(xp.where(xp.equal(a, 0), 0.0, a * (top - z)), axis),
            xp.wide_sum(abs(a), axis),  # 0 where all coefficients are: those of both signs may add up to 0
        )
        others = self.of_finite(others * self.unit + (ties - 1), top)
        loss = xp.where(xp.equal(size, 0), 0.0, weight * xp.log1p(others) + near)
        return loss, (top, others, weight, size, rest)

    def value(self, losses: Array) -> Array:
        """Return the wide loss."""
        return self.reduced(losses)

    def linearised_at(self, saved: Saved) -> Array:
        """Return losses at which `value` has the right slope: any, for it is linear."""
        return 0 * saved[2]

    def slopes(self, upstream: Array, saved: Saved) -> Array:
        """Return ``upstream_i (A_i q_ic - a_ic)``; a row is 0 whose upstream is, or whose coefficients are."""
        xp, x, a = self.xp, self.logits(), self._coefficients()
        top, others, weight, size, rest = saved
        dead = xp.equal(upstream, 0) | xp.equal(size, 0)
        share = weight / (1 + others)
        g = self.scaled(self.exp(x - top), xp.where(dead, 0.0, upstream * share))
        g = g - a * xp.astype(xp.where(dead, 0.0, upstream), self.inside)
        # Where q_k > 1/2, the sum over the other classes: A q_k - a_k would cancel.
        at_top = xp.astype(xp.where(dead, 0.0, upstream * (rest - others * share)), self.inside)
        g = xp.where(xp.equal(x, top) & (others < 1), at_top, g)
        return xp.where(xp.isnan(g), xp.astype(xp.where(dead, 0.0, NAN * upstream), self.inside), g)

    def _coefficients(self) -> Array:
        xp, c = self.xp, self.c
        alpha, beta = (None if x is None else self.coefficient(x) for x in (c.alpha, c.beta))
        column, row = (None if x is None else xp.astype(x, self.inside) for x in (c.column, c.row))
        if c.targets is None:
            a = xp.where(xp.equal(xp.positions(self.call.num_classes, c.axis, self.call.logits), c.index), alpha, 0.0)
        else:
            a = alpha * (c.targets if column is None else c.targets * column)
        return a if beta is None else a + (beta if row is None else beta * row)


class Binary(_Halves):
    """Binary losses: an element's own."""

    def losses(self) -> tuple[Array, Saved]:
        """Return ``pos softplus(-z) + neg softplus(z)``; nothing is saved."""
        xp, z, (pos, neg) = self.xp, self.logits(), self._coefficients()
        size, far = abs(z), xp.where(z > 0, neg, pos)
        loss = (pos + neg) * xp.log1p(self.exp(-size) * self.unit) + xp.where(xp.equal(far, 0), 0.0, far * size)
        return xp.where(xp.equal(pos, 0) & xp.equal(neg, 0), 0.0, loss), ()

    def value(self, losses: Array) -> Array:
        """Return the wide loss."""
        xp, shape, spec = self.xp, self.call.shape, self.call.spec
        if spec.average_outputs:
            losses = xp.sum(losses, len(shape) - 1)
        elif spec.reduction != "none" and shape and shape[-1]:
            losses = xp.wide_sum(losses, len(shape) - 1)  # of an array XLA would make one in float64 first
        return self.reduced(losses)

    def linearised_at(self, saved: Saved) -> Array:
        """Return losses at which `value` has the right slope: any, for it is linear."""
        return 0 * self.logits()

    def slopes(self, upstream: Array, saved: Saved) -> Array:
        """Return ``upstream (neg sigmoid(z) - pos sigmoid(-z))``, 0 where a factor is 0."""
        xp, x, (pos, neg) = self.xp, self.logits(), self._coefficients()
        positive = x > 0
        far, near = (xp.where(positive, *sides) * upstream for sides in ((neg, pos), (pos, neg)))
        if self.unit == 1:
            e = xp.exp(-abs(x))
            g = (far - e * near) / (1 + e)
        else:  # twice its root: neither is flushed unless the product is, nor is there a factor for XLA to move
            root = xp.exp(-abs(x) * 0.5)
            g = (far - root * (root * near)) / (1 + root * root)
        dead = xp.equal(upstream, 0) | xp.equal(pos, 0) & xp.equal(neg, 0)
        return xp.where(dead, 0.0, xp.where(positive, g, -g))

    def _coefficients(self) -> list[Array]:
        return [self.coefficient(x) for x in (self.c.pos, self.c.neg)]
