"""Spec, targets and weights -> coefficients: every convention, written once, over a handful of array functions.

A loss is ``sum_ic a_ic L_ic`` and its gradient ``A_i q_ic - a_ic``. All that a spec says decides only the numbers a::

    index targets y      a_ic = alpha_i [c = y_i]          + beta_i row_c
    distributions t      a_ic = alpha_i t_ic column_c      + beta_i row_c
    binary               pos_e, neg_e

A *row array* has the logits' shape with length 1 on the class axis, so it broadcasts against them; weights and sums are
float64. Where the host has not checked the values, a bad row's coefficients are NaN: never a wrong number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from .call import Call
from .compute.arrays import Array, Arrays, class_shape
from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True, slots=True)
class SoftmaxCoefficients:
    """The coefficients of a softmax cross-entropy; ``column`` and ``row`` are None where they are all 1."""

    axis: int
    index: Array | None
    targets: Array | None
    alpha: Array
    column: Array | None
    beta: Array | None
    row: Array | None
    denominator: Array | float | None


@dataclass(frozen=True, slots=True)
class SigmoidCoefficients:
    """The coefficients of a binary cross-entropy, in the logits' shape."""

    pos: Array
    neg: Array
    denominator: Array | float | None


def undivided(c: Any) -> Any:
    """Return the coefficients without their denominator: of a sum, which a denominator of 0 does not silence."""
    return replace(c, denominator=None)


def inside_of(xp: Arrays, spec: Any, dtype: Any) -> Any:
    """Return the type that is computed in for logits of ``dtype``."""
    return xp.wide if spec.precision == "exact" or dtype == xp.wide else xp.float32


@lru_cache(maxsize=64)
def summed(spec: Any) -> Any:
    """Return the spec of the sum over positions."""
    return replace(spec, reduction="sum")


def divided(xp: Arrays, c: Any) -> Any:
    """Return the coefficients divided by their denominator, all 0 where that is."""
    if c.denominator is None:
        return c

    def quotient(x: Array | None) -> Any:
        return None if x is None else divide(xp, "zero", x, c.denominator)

    if isinstance(c, SigmoidCoefficients):
        return SigmoidCoefficients(quotient(c.pos), quotient(c.neg), None)
    return SoftmaxCoefficients(
        c.axis, c.index, c.targets, quotient(c.alpha), c.column, quotient(c.beta), c.row, denominator=None
    )


def lower(xp: Arrays, call: Call, dtype: Any, narrow: bool = False) -> SoftmaxCoefficients | SigmoidCoefficients:
    """Return the coefficients of one checked call; distributions and binary coefficients have ``dtype``.

    Where ``narrow``, class weights of a binary loss are known to fit ``dtype``, and are made that before they multiply.
    """
    parts = _parts(xp, call, dtype, narrow)
    return parts.coefficients(parts.denominator())


def denominator_of(xp: Arrays, call: Call, dtype: Any, parts: Iterable[Call]) -> Array | float | None:
    """Return what a mean divides by, or None: of a whole call, without an array of its size, from its parts."""
    of_values = ("mean_over_weights", "mean_over_valid", "mean_over_nonzero")
    if call.denominator is not None or call.spec.reduction not in of_values:
        return _denominator(xp, call, None, None)
    found: list[Any] = [_parts(xp, part, dtype).denominator() for part in parts]
    return sum(found[1:], found[0])


def _parts(xp: Arrays, call: Call, dtype: Any, narrow: bool = False) -> _Softmax | _Sigmoid:
    if isinstance(call.spec, SoftmaxCrossEntropy):
        return _Softmax(xp, call, dtype)
    return _Sigmoid(xp, call, dtype, narrow)


class _Softmax:
    """What coefficients and denominator share, for one class out of C."""

    def __init__(self, xp: Arrays, call: Call, dtype: Any) -> None:
        self.xp, self.call = xp, call
        spec: SoftmaxCrossEntropy = call.spec
        axis, num_classes = call.axis, call.num_classes
        self.w, self.s = _weight(xp, call, call.class_weight), _sample_weight(xp, call)
        index = targets = given = bad = None
        if call.hard:
            index = xp.expand_dims(xp.astype(call.targets, xp.int64), axis)
            valid = _valid(xp, call, index, spec.ignore_index)
            if valid is not None:
                index = xp.where(valid, index, 0)
            if not call.checked:
                bad = (index < 0) | (index >= num_classes)
                index = xp.where(bad, 0, index)
        else:
            valid = _valid(xp, call)
            # What is wider than the logits decides as it is, and is rounded after: an argmax must not see a tie.
            given = call.targets if call.targets.dtype == xp.wide else xp.astype(call.targets, dtype)
            if valid is not None:
                given = xp.where(valid, given, 0.0)
            if not call.checked:
                bad = xp.any(~((given >= 0) & (given < INF)), axis)
            targets = xp.astype(given, dtype)
        self.valid, self.bad, self.index, self.targets = valid, bad, index, targets

        # `weight` is W, a row's class weight before smoothing.
        self.weight: Array | None = None
        self.row: Array | None = None
        self._weights: Array | None = None
        if self.w is not None:
            self.row = xp.reshape(self.w, class_shape(num_classes, axis, len(call.shape)))
            if call.hard:
                self.weight = xp.take(self.w, index)
            elif spec.weighting == "label":
                self.weight = xp.take(self.w, xp.argmax(given, axis))
            else:
                self.weight = xp.sum(xp.astype(given, xp.wide) * self.row, axis)

    def finish(self, rows: Array | None, factor: float = 1.0) -> Array:
        """Return s * rows * factor, one a row."""
        rows = self.xp.ones(self.call.row_shape(self.xp), self.call.logits) if rows is None else rows
        rows = rows if self.s is None else rows * self.s
        return _finish(self.xp, rows if factor == 1 else rows * factor, self.valid, self.bad)

    def weights(self) -> Array:
        """Return v s W, one a row."""
        if self._weights is None:
            self._weights = self.finish(self.weight)
        return self._weights

    def denominator(self) -> Array | float | None:
        return _denominator(self.xp, self.call, self.valid, self.weights)

    def coefficients(self, denominator: Array | float | None) -> SoftmaxCoefficients:
        spec: SoftmaxCrossEntropy = self.call.spec
        smoothing = spec.label_smoothing
        keep, spread = 1 - smoothing, smoothing / self.call.num_classes
        column, row = None, self.row
        on_target = on_all = self.weight
        if self.weight is not None and spec.weighting == "term":
            on_all = None
            if not self.call.hard:
                on_target, column = None, row
        elif self.weight is not None:
            row = None
            if spec.weighting == "expected" and smoothing:
                on_target = on_all = keep * self.weight + spread * self.xp.sum(self.w)
        return SoftmaxCoefficients(
            axis=self.call.axis,
            index=self.index,
            targets=self.targets,
            alpha=self.weights() if not smoothing and on_target is self.weight else self.finish(on_target, keep),
            column=column,
            beta=self.finish(on_all, spread) if smoothing else None,
            row=row if smoothing else None,
            denominator=denominator,
        )


class _Sigmoid:
    """What coefficients and denominator share, for a binary loss."""

    def __init__(self, xp: Arrays, call: Call, dtype: Any, narrow: bool) -> None:
        self.xp, self.call = xp, call
        spec: SigmoidCrossEntropy = call.spec
        self.s, bad = _sample_weight(xp, call), None
        self.w_neg, self.w_pos = (_weight(xp, call, w) for w in call.class_weight or (None, None))
        # Other weights and what is wider than the logits are rounded once, as part of a coefficient.
        if (self.w_neg is not None and not narrow) or self.s is not None or call.targets.dtype == xp.wide:
            dtype = xp.wide
        t = xp.astype(call.targets, dtype)
        valid = _valid(xp, call, t, spec.ignore_label)
        if valid is not None:
            t = xp.where(valid, t, 0.0)
        if not call.checked:
            bad = ~((t >= 0) & (t < INF))
        self.t, self.valid, self.bad = t, valid, bad

    def weight(self) -> Array | None:
        """Return W, an element's class weight before smoothing: several passes, so where it is needed only."""
        if self.w_neg is None:
            return None
        if self.call.spec.weighting == "label":
            return self.xp.where(self.t > 0.5, self.w_pos, self.w_neg)
        t = self.xp.astype(self.t, self.xp.wide)
        return (1 - t) * self.w_neg + t * self.w_pos

    def denominator(self) -> Array | float | None:
        xp, call, valid, last = self.xp, self.call, self.valid, len(self.call.shape) - 1
        average = call.spec.average_outputs

        def weights() -> Array:
            each = xp.ones(xp.shape(call.logits), call.logits)
            for factor in (self.s, self.weight()):
                if factor is not None:
                    each = each * factor
            each = _finish(xp, each, valid, self.bad)
            return xp.sum(each, last) / call.num_classes if average else each

        counted = xp.any(valid, last) if valid is not None and average else valid
        return _denominator(xp, call, counted, weights)

    def coefficients(self, denominator: Array | float | None) -> SigmoidCoefficients:
        xp, spec, smooth = self.xp, self.call.spec, self.call.spec.label_smoothing
        # 1 - t' is never computed as such: at t = 1 it is e / 2 to the last bit.
        pos, neg = self.t, 1 - self.t
        if smooth:
            pos, neg = (1 - smooth) * pos + smooth / 2, (1 - smooth) * neg + smooth / 2
        if self.w_neg is not None:
            w_pos, w_neg = (self.weight(),) * 2 if spec.weighting == "label" else (self.w_pos, self.w_neg)
            pos, neg = pos * xp.astype(w_pos, pos.dtype), neg * xp.astype(w_neg, neg.dtype)
        share = self.s
        if spec.average_outputs:
            share = (1 if share is None else share) / self.call.num_classes
        if share is not None:
            pos, neg = pos * share, neg * share
        return SigmoidCoefficients(
            pos=_finish(xp, pos, self.valid, self.bad),
            neg=_finish(xp, neg, self.valid, self.bad),
            denominator=denominator,
        )


def _valid(xp: Arrays, call: Call, targets: Array | None = None, ignored: int | None = None) -> Array | None:
    """Return where a position is neither masked nor ignored, None where all are so."""
    valid = call.rows(xp, call.mask)
    if ignored is None or call.none_ignored:
        return valid
    kept = ~xp.equal(targets, ignored)
    return kept if valid is None else valid & kept


def _weight(xp: Arrays, call: Call, w: Array | None) -> Array | None:
    """Return a weight as float64, NaN where it is bad and was not looked at."""
    if w is None:
        return None
    w = xp.astype(w, xp.wide)
    return w if call.checked else xp.where((w > -INF) & (w < INF), w, NAN)


def _sample_weight(xp: Arrays, call: Call) -> Array | None:
    return _weight(xp, call, call.rows(xp, call.sample_weight))


def _finish(xp: Arrays, x: Array, valid: Array | None, bad: Array | None) -> Array:
    """Return 0 where a position is ignored and NaN where its target is bad."""
    if valid is not None:
        x = xp.where(valid, x, 0.0)
    return x if bad is None else xp.where(bad, NAN, x)


def _denominator(xp: Arrays, call: Call, valid: Array | None, weights: Any) -> Array | float | None:
    """Return the number that a mean divides by; ``weights()`` are v s W, one a position."""
    if call.denominator is not None:
        return call.denominator
    match call.spec.reduction:
        case "mean_over_weights":
            return xp.sum(weights())
        case "mean_over_nonzero":
            return _count(xp, ~xp.equal(weights(), 0))
        case "mean_over_valid" if valid is not None:
            return _count(xp, ~xp.equal(_finish(xp, xp.ones(call.row_shape(xp), call.logits), valid, None), 0))
        case "mean_over_valid" | "mean_over_positions":
            return call.num_positions(xp)
        case "mean_over_batch":
            return call.batch_size(xp)
    return None


def _count(xp: Arrays, condition: Array) -> Array:
    return xp.astype(xp.sum(xp.astype(condition, xp.int64)), xp.wide)


def reduce(xp: Arrays, call: Call, rows: Array, denominator: Array | float | None) -> Array:
    """Return the wide loss of weighted row losses: per position, their sum, or their mean."""
    reduction = call.spec.reduction
    if reduction == "none":
        return rows if call.position_axis is None else xp.reshape(rows, call.loss_shape(xp))
    total = xp.sum(xp.astype(rows, xp.wide))
    return total if denominator is None else divide(xp, call.spec.zero_denominator, total, denominator)


def divide(xp: Arrays, zero_denominator: str, total: Array, denominator: Any) -> Array:
    """Return the quotient in the type of ``total``; where the denominator is exactly 0, what the spec says instead."""
    if isinstance(denominator, int | float):
        if denominator:
            return total / denominator
        denominator = 0 * xp.ones((), total)
    denominator = xp.astype(denominator, total.dtype)
    return unless_empty(xp, zero_denominator, total / xp.where(xp.equal(denominator, 0), 1.0, denominator), denominator)


def unless_empty(xp: Arrays, zero_denominator: str, mean: Array, denominator: Any) -> Array:
    """Return the mean; where the denominator is exactly 0, what the spec says, with a gradient of 0."""
    value = 0.0 if zero_denominator == "zero" else NAN
    if isinstance(denominator, int | float):
        if denominator:
            return mean
        denominator = 0 * xp.ones((), mean)
    return xp.where(xp.equal(denominator, 0), value, mean)
