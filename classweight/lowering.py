"""Spec, targets and weights -> coefficients: every convention, written once, over a handful of array functions.

A loss is ``sum_ic a_ic L_ic`` and its gradient ``A_i q_ic - a_ic``. All that a spec says decides only the numbers a::

    index targets y      a_ic = alpha_i [c = y_i]          + beta_i row_c
    distributions t      a_ic = alpha_i t_ic column_c      + beta_i row_c
    binary               pos_e, neg_e

A *row array* has the logits' shape with length 1 on the class axis, so it broadcasts against them; weights and sums are
float64. Where the host has not checked the values, a bad row's coefficients are NaN: never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from .call import Call
from .compute.arrays import Array, Arrays, class_shape
from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

NAN, INF = float("nan"), float("inf")


def _once(method: Callable[[Any], Any]) -> Any:
    """Make a property that is computed when it is first asked for; Dynamo cannot trace `functools`' own."""
    name = f"_{method.__name__}_found"

    def get(self: Any) -> Any:
        if not hasattr(self, name):
            setattr(self, name, method(self))
        return getattr(self, name)

    return property(get, doc=method.__doc__)


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


@dataclass(frozen=True, slots=True)
class SoftmaxFactors:
    """What a row's coefficients are products of, beside its sample weight; None stands for ones.

    With u a row's number in ``of_row``, or that of its target in ``by_target``::

        a_ic = keep s_i u_i t_ic column_c + spread s_i u_i row_c

    where the second u is 1 if it is of the target and not ``beta_by_target``.
    """

    keep: float
    spread: float
    of_row: Array | None
    by_target: Array | None
    beta_by_target: bool
    column: Array | None
    row: Array | None


@dataclass(frozen=True, slots=True)
class SigmoidFactors:
    """What an element's coefficients are products of, beside its sample weight.

    ``pos = share s positive (keep t + spread)`` and ``neg = share s negative (keep (1 - t) + spread)``, where the
    weight of the label is that of both if ``by_label``.
    """

    share: float
    keep: float
    spread: float
    positive: Array | None
    negative: Array | None
    by_label: bool


def undivided(c: Any) -> Any:
    """Return the coefficients without their denominator: of a sum, which a denominator of 0 does not silence."""
    return replace(c, denominator=None)


def inside_of(xp: Arrays, spec: Any, dtype: Any) -> Any:
    """Return the type that is computed in for logits of ``dtype``."""
    return xp.wide if spec.precision == "exact" or dtype == xp.wide else xp.float32


@lru_cache(maxsize=64)
def summed(spec: Any) -> Any:
    """Return the spec of the sum over positions."""
    return changed(spec, reduction="sum")


def changed(spec: Any, **values: Any) -> Any:
    """Return the spec with other values of fields; not validated again, for Dynamo cannot trace that."""
    found = object.__new__(type(spec))
    for field in fields(spec):
        object.__setattr__(found, field.name, values.get(field.name, getattr(spec, field.name)))
    return found


def divided(xp: Arrays, c: Any) -> Any:
    """Return the coefficients divided by their denominator, all 0 where that is.

    The denominator that remains is 1, or NaN: loss and upstream gradient are divided by that, so that a coefficient of
    0 stays one.
    """
    if c.denominator is None:
        return c
    by = c.denominator
    is_number = by == by
    if isinstance(by, int | float):
        rest, by = (1.0, by) if is_number else (NAN, 1.0)
    else:
        rest, by = xp.where(is_number, xp.ones((), by), NAN), xp.where(is_number, by, 1.0)

    def quotient(x: Array | None) -> Any:
        return None if x is None else divide(xp, "zero", x, by)

    names = ("pos", "neg") if isinstance(c, SigmoidCoefficients) else ("alpha", "beta")
    return replace(c, denominator=rest, **{name: quotient(getattr(c, name)) for name in names})


def lower(xp: Arrays, call: Call, dtype: Any) -> SoftmaxCoefficients | SigmoidCoefficients:
    """Return the coefficients of one checked call; distributions and binary coefficients have ``dtype``."""
    parts = parts_of(xp, call, dtype)
    return parts.coefficients(parts.denominator())


def denominator_of(xp: Arrays, call: Call, dtype: Any) -> Array | float | None:
    """Return what a mean divides by, or None."""
    return parts_of(xp, call, dtype).denominator()


def magnitudes(xp: Arrays, call: Call) -> Array:
    """Return the sum of the magnitudes of each row's coefficients, whose classes are last: 0 where all of them are."""
    c, last = parts_of(xp, call, xp.wide).coefficients(None), len(call.shape) - 1
    if isinstance(c, SigmoidCoefficients):
        return xp.sum(abs(c.pos) + abs(c.neg), last)
    total = abs(c.alpha)
    if c.targets is not None:
        total = total * xp.sum(c.targets if c.column is None else c.targets * abs(c.column), last)
    if c.beta is not None:
        total = total + abs(c.beta) * (call.num_classes if c.row is None else xp.sum(abs(c.row), last))
    return total


def parts_of(xp: Arrays, call: Call, dtype: Any) -> _Softmax | _Sigmoid:
    """Return what coefficients, their factors and the denominator are made of."""
    return (_Softmax if isinstance(call.spec, SoftmaxCrossEntropy) else _Sigmoid)(xp, call, dtype)


class _Softmax:
    """What coefficients and denominator share, for one class out of C."""

    def __init__(self, xp: Arrays, call: Call, dtype: Any) -> None:
        self.xp, self.call, self.dtype = xp, call, dtype
        self.w, self.s = _weight(xp, call, call.class_weight), _sample_weight(xp, call)
        ignored, given = call.spec.ignore_index, None
        if call.hard:
            given = xp.expand_dims(xp.astype(call.targets, xp.int64), call.axis)
        self.valid, self._index = _valid(xp, call, given, ignored), given

    @_once
    def bad(self) -> Array | None:
        """Return where a target is bad and was not looked at."""
        if self.call.checked:
            return None
        if self.call.hard:
            index = self._valid_index
            return (index < 0) | (index >= self.call.num_classes)
        return self.xp.any(~((self.given >= 0) & (self.given < INF)), self.call.axis)

    @_once
    def _valid_index(self) -> Array:
        return self._index if self.valid is None else self.xp.where(self.valid, self._index, 0)

    @_once
    def index(self) -> Array:
        """Return the target, 0 where it is ignored or bad."""
        return self._valid_index if self.bad is None else self.xp.where(self.bad, 0, self._valid_index)

    @_once
    def given(self) -> Array:
        """Return the distributions, 0 where they are masked."""
        # What is wider than the logits decides as it is, and is rounded after: an argmax must not see a tie.
        targets = self.call.targets
        given = targets if targets.dtype == self.xp.wide else self.xp.astype(targets, self.dtype)
        return given if self.valid is None else self.xp.where(self.valid, given, 0.0)

    @_once
    def weight(self) -> Array | None:
        """W, a row's class weight before smoothing."""
        xp, call = self.xp, self.call
        if self.w is None:
            return None
        if call.hard:
            return xp.take(self.w, self.index)
        if call.spec.weighting == "label":
            return xp.take(self.w, xp.argmax(self.given, call.axis))
        return _weighted_sum(xp, self.given, self.w, call.axis)

    def by_class(self, values: Array | None) -> Array | None:
        """Return numbers of which a class has one as broadcastable against the logits."""
        shape = class_shape(self.call.num_classes, self.call.axis, len(self.call.shape))
        return None if values is None else self.xp.reshape(values, shape)

    def _finish(self, rows: Array | None, factor: float = 1.0) -> Array:
        """Return s * rows * factor, one a row."""
        rows = self.xp.ones(self.call.row_shape(self.xp), self.call.logits) if rows is None else rows
        rows = rows if self.s is None else rows * self.s
        return _finish(self.xp, rows if factor == 1 else rows * factor, self.valid, self.bad)

    @_once
    def weights(self) -> Array:
        """V s W, one a row."""
        return self._finish(self.weight)

    def denominator(self) -> Array | float | None:
        return _denominator(self.xp, self.call, self.valid, lambda: self.weights)

    def factors(self) -> SoftmaxFactors:
        spec: SoftmaxCrossEntropy = self.call.spec
        smoothing, w = spec.label_smoothing, self.w
        keep, spread = 1 - smoothing, smoothing / self.call.num_classes
        inside = spec.weighting == "term"
        by_target = column = of_row = None
        if w is not None and self.call.hard:
            by_target = keep * w + spread * self.xp.sum(w) if spec.weighting == "expected" and smoothing else w
        elif w is not None and inside:
            column = w
        elif w is not None:
            of_row = self.weight
            if spec.weighting == "expected" and smoothing:
                of_row = keep * of_row + spread * self.xp.sum(w)
        row = w if inside and smoothing else None
        return SoftmaxFactors(keep, spread, of_row, by_target, not inside, column, row)

    def coefficients(self, denominator: Array | float | None) -> SoftmaxCoefficients:
        f = self.factors()
        on_target = of_row = f.of_row
        if f.by_target is not None:
            on_target = self.weight if f.by_target is self.w else self.xp.take(f.by_target, self.index)
            of_row = on_target if f.beta_by_target else None
        return SoftmaxCoefficients(
            axis=self.call.axis,
            index=self.index if self.call.hard else None,
            targets=None if self.call.hard else self.xp.astype(self.given, self.dtype),
            alpha=self.weights if f.keep == 1 and on_target is self.weight else self._finish(on_target, f.keep),
            column=self.by_class(f.column),
            beta=self._finish(of_row, f.spread) if f.spread else None,
            row=self.by_class(f.row),
            denominator=denominator,
        )


class _Sigmoid:
    """What coefficients and denominator share, for a binary loss."""

    def __init__(self, xp: Arrays, call: Call, dtype: Any) -> None:
        self.xp, self.call = xp, call
        self.s = _sample_weight(xp, call)
        self.w_neg, self.w_pos = (_weight(xp, call, w) for w in call.class_weight or (None, None))
        # Weights and what is wider than the logits are rounded once, as part of a coefficient.
        wide = self.w_neg is not None or self.s is not None or call.targets.dtype == xp.wide
        self.dtype = xp.wide if wide else dtype
        targets = call.targets if xp.kind(call.targets) == "f" else xp.astype(call.targets, self.dtype)
        self.valid = _valid(xp, call, targets, call.spec.ignore_label)

    @_once
    def t(self) -> Array:
        """Return the targets, 0 where they are ignored."""
        t = self.xp.astype(self.call.targets, self.dtype)
        return t if self.valid is None else self.xp.where(self.valid, t, 0.0)

    @_once
    def bad(self) -> Array | None:
        """Return where a target is bad and was not looked at."""
        return None if self.call.checked else ~((self.t >= 0) & (self.t < INF))

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

    def factors(self) -> SigmoidFactors:
        spec: SigmoidCrossEntropy = self.call.spec
        share = 1 / self.call.num_classes if spec.average_outputs else 1.0
        smoothing = spec.label_smoothing
        return SigmoidFactors(share, 1 - smoothing, smoothing / 2, self.w_pos, self.w_neg, spec.weighting == "label")

    def coefficients(self, denominator: Array | float | None) -> SigmoidCoefficients:
        xp, f = self.xp, self.factors()
        # 1 - t' is never computed as such: at t = 1 it is e / 2 to the last bit.
        pos, neg = self.t, 1 - self.t
        if f.spread:
            pos, neg = f.keep * pos + f.spread, f.keep * neg + f.spread
        if self.w_neg is not None:
            w_pos, w_neg = (self.weight(),) * 2 if f.by_label else (f.positive, f.negative)
            pos, neg = pos * xp.astype(w_pos, pos.dtype), neg * xp.astype(w_neg, neg.dtype)
        share = self.s
        if self.call.spec.average_outputs:
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


def _weighted_sum(xp: Arrays, x: Array, w: Array, axis: int) -> Array:
    """Return the wide sum of x_c w_c; NumPy makes no array of the size of ``x`` for it."""
    if hasattr(xp, "weighted_sum"):
        return xp.weighted_sum(x, w, axis)
    return xp.sum(xp.astype(x, xp.wide) * xp.reshape(w, class_shape(x.shape[axis], axis, len(x.shape))), axis)


def denominator_of_rows(xp: Arrays, call: Call, weights: Any) -> Array | float | None:
    """Return what a mean divides by where no position is ignored; ``weights()`` are the class weights of all."""
    return _denominator(xp, call, None, weights)


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
