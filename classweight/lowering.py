"""Spec, targets and weights -> coefficients: every convention, written once, over a handful of array functions.

A loss is ``sum_ic a_ic L_ic`` and its gradient ``A_i q_ic - a_ic``. All that a spec says decides only the numbers a::

    index targets y      a_ic = alpha_i [c = y_i]          + beta_i row_c
    distributions t      a_ic = alpha_i t_ic column_c      + beta_i row_c
    binary               pos_e, neg_e

A *row array* has the logits' shape with length 1 on the class axis, so it broadcasts against them; weights and sums are
float64. Where the host has not checked the values, a bad row's coefficients are NaN: never a wrong number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ._arrays import Array, Arrays, class_shape
from .call import Call
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


def lower(xp: Arrays, call: Call, dtype: Any) -> SoftmaxCoefficients | SigmoidCoefficients:
    """Return the coefficients of one checked call; distributions and binary coefficients have ``dtype``."""
    return (_softmax if isinstance(call.spec, SoftmaxCrossEntropy) else _sigmoid)(xp, call, dtype)


def _softmax(xp: Arrays, call: Call, dtype: Any) -> SoftmaxCoefficients:
    spec: SoftmaxCrossEntropy = call.spec
    axis, num_classes, smoothing = call.axis, call.num_classes, spec.label_smoothing
    w, s, valid, bad = _weight(xp, call, call.class_weight), _sample_weight(xp, call), call.rows(xp, call.mask), None
    given = None
    if call.hard:
        index, targets = xp.expand_dims(xp.astype(call.targets, xp.int64), axis), None
        if spec.ignore_index is not None:
            kept = ~xp.equal(index, spec.ignore_index)
            valid = kept if valid is None else valid & kept
        if valid is not None:
            index = xp.where(valid, index, 0)
        if not call.checked:
            bad = (index < 0) | (index >= num_classes)
            index = xp.where(bad, 0, index)
    else:
        # What is wider than the logits decides as it is, and is rounded after: an argmax must not see a tie.
        given = call.targets if call.targets.dtype == xp.wide else xp.astype(call.targets, dtype)
        if valid is not None:
            given = xp.where(valid, given, 0.0)
        if not call.checked:
            bad = xp.any(~((given >= 0) & (given < INF)), axis)
        index, targets = None, xp.astype(given, dtype)

    # `weight` is W, a row's class weight before smoothing.
    weight: Array | None = None
    column = row = None
    if w is not None:
        row = xp.reshape(w, class_shape(num_classes, axis, len(call.shape)))
        if call.hard:
            weight = xp.take(w, index)
        elif spec.weighting == "label":
            weight = xp.take(w, xp.argmax(given, axis))
        else:
            weight = xp.sum(xp.astype(given, xp.wide) * row, axis)

    keep, spread = 1 - smoothing, smoothing / num_classes
    on_target = on_all = weight
    if weight is not None and spec.weighting == "term":
        on_all = None
        if not call.hard:
            on_target, column = None, row
    elif weight is not None:
        row = None
        if spec.weighting == "expected" and smoothing:
            on_target = on_all = keep * weight + spread * xp.sum(w)

    def finish(rows: Array | None, factor: float = 1.0) -> Array:
        """Return s * rows * factor, one a row."""
        rows = xp.ones(call.row_shape(xp), call.logits) if rows is None else rows
        rows = rows if s is None else rows * s
        return _finish(xp, rows if factor == 1 else rows * factor, valid, bad)

    alpha = finish(on_target, keep)
    weights_are_alpha = not smoothing and on_target is weight
    return SoftmaxCoefficients(
        axis=axis,
        index=index,
        targets=targets,
        alpha=alpha,
        column=column,
        beta=finish(on_all, spread) if smoothing else None,
        row=row if smoothing else None,
        denominator=_denominator(xp, call, valid, lambda: alpha if weights_are_alpha else finish(weight)),
    )


def _sigmoid(xp: Arrays, call: Call, dtype: Any) -> SigmoidCoefficients:
    spec: SigmoidCrossEntropy = call.spec
    w_neg, w_pos = (_weight(xp, call, w) for w in call.class_weight or (None, None))
    s, valid, bad = _sample_weight(xp, call), call.rows(xp, call.mask), None
    # Weights and what is wider than the logits are rounded once, as part of a coefficient.
    if w_neg is not None or s is not None or call.targets.dtype == xp.wide:
        dtype = xp.wide
    t = xp.astype(call.targets, dtype)
    if spec.ignore_label is not None:
        kept = ~xp.equal(t, spec.ignore_label)
        valid = kept if valid is None else valid & kept
    if valid is not None:
        t = xp.where(valid, t, 0.0)
    if not call.checked:
        bad = ~((t >= 0) & (t < INF))

    # 1 - t' is never computed as such: at t = 1 it is e / 2 to the last bit.
    smooth = spec.label_smoothing
    pos, neg, weight = t, 1 - t, None
    if w_neg is not None:
        weight = xp.where(t > 0.5, w_pos, w_neg) if spec.weighting == "label" else neg * w_neg + t * w_pos
    if smooth:
        pos, neg = (1 - smooth) * pos + smooth / 2, (1 - smooth) * neg + smooth / 2
    if weight is not None:
        pos, neg = (pos * weight, neg * weight) if spec.weighting == "label" else (pos * w_pos, neg * w_neg)
    share = s
    if spec.average_outputs:
        share = (1 if share is None else share) / call.num_classes
    if share is not None:
        pos, neg = pos * share, neg * share

    def weights() -> Array:
        each = xp.ones(xp.shape(call.logits), call.logits)
        for factor in (s, weight):
            if factor is not None:
                each = each * factor
        each = _finish(xp, each, valid, bad)
        return xp.sum(each, len(call.shape) - 1) / call.num_classes if spec.average_outputs else each

    counted = xp.any(valid, len(call.shape) - 1) if valid is not None and spec.average_outputs else valid
    return SigmoidCoefficients(
        pos=_finish(xp, pos, valid, bad),
        neg=_finish(xp, neg, valid, bad),
        denominator=_denominator(xp, call, counted, weights),
    )


def _weight(xp: Arrays, call: Call, w: Array | None) -> Array | None:
    """Return a weight as float64, NaN where it is bad and was not looked at."""
    if w is None:
        return None
    w = xp.astype(w, xp.wide)
    return w if call.checked else xp.where((w >= 0) & (w < INF), w, NAN)


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
    """Return the mean; where the denominator is exactly 0, what the spec says, with a gradient of 0."""
    value = 0.0 if zero_denominator == "zero" else NAN
    if isinstance(denominator, int | float):
        if denominator:
            return total / denominator
        denominator = 0 * xp.ones((), total)
    denominator = xp.astype(denominator, xp.wide)
    empty = xp.equal(denominator, 0)
    return xp.where(empty, value, total / xp.where(empty, 1.0, denominator))
