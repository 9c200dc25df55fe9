"""The definition in 50-digit arithmetic: plain loops over positions and classes, sharing no code with what it judges.

Every number is taken as the exact real that it holds. Beside loss and gradient come their *magnitudes*: the sum of the
absolute values of the terms that a number is the sum of, against which its rounding error is measured where they
cancel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf

from classweight.spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

DIGITS = 50
Numbers = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Truth:
    """Loss, gradient and their magnitudes as arrays of mpf.

    ``gradient_scale`` is the sum of a row's |a_ic|, times the upstream gradient and over the denominator. Where weights
    of both signs cancel in a denominator, all magnitudes are that much larger, for its error is in every number.
    """

    loss: Numbers
    gradient: Numbers
    loss_magnitude: Numbers
    gradient_magnitude: Numbers
    gradient_scale: Numbers


@dataclass(slots=True)
class Row:
    """One position: which inputs are its, its weighted loss, its slopes, and what the denominators need of it."""

    inputs: list[tuple[int, ...]]
    valid: bool
    weight: Any
    weight_magnitude: Any
    loss: Any
    loss_magnitude: Any
    slopes: list[Any]
    magnitudes: list[Any]
    totals: list[Any]


def evaluate(
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    logits: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    *,
    eps: float,
    sample_weight: Any = None,
    class_weight: Any = None,
    mask: Any = None,
    denominator: float | None = None,
    upstream: Any = None,
) -> Truth:
    """Return what the definition says; ``eps`` is the spacing at 1 of the logits' type, for ``clip="dtype"``.

    Arguments are those of an adapter's ``loss``. Of values that must not be there, the rows that they count in are NaN.
    """
    with mp.workdps(DIGITS + 10 + _digits_that_cancel(spec, logits)):
        if isinstance(spec, SoftmaxCrossEntropy):
            positions, rows = _softmax_rows(spec, logits, targets, sample_weight, class_weight, mask, eps)
        else:
            positions, rows = _sigmoid_rows(spec, logits, targets, sample_weight, class_weight, mask, eps)
        return _reduce(spec, logits.shape, positions, rows, denominator, upstream)


def _digits_that_cancel(spec: SoftmaxCrossEntropy | SigmoidCrossEntropy, logits: npt.NDArray[Any]) -> int:
    """Return how many digits the smallest probability, or its distance from 1, has before its first."""
    finite = np.asarray(logits, np.float64)[np.isfinite(logits)]
    if spec.inputs != "logits" or not finite.size:
        return 330
    softmax = isinstance(spec, SoftmaxCrossEntropy)
    spread = finite.max() - finite.min() if softmax else np.abs(finite).max()
    return min(900, int(spread / 2))  # with more, no type can tell


def _at_prefix(x: Any, position: tuple[int, ...]) -> Any:
    """Return the entry of a weight or mask whose shape is a prefix of the position shape."""
    x = np.asarray(x)
    return x[position[: x.ndim]]


def _sample_weight(sample_weight: Any, position: tuple[int, ...]) -> Any:
    return mpf(1) if sample_weight is None else mpf(float(_at_prefix(sample_weight, position)))


def _class_weights(spec: SoftmaxCrossEntropy, class_weight: Any, num_classes: int) -> list[Any] | None:
    """Return one weight a class."""
    if class_weight is not None:
        return [mpf(float(w)) for w in class_weight]
    if spec.class_weight is None:
        return None
    if spec.class_weight == () or isinstance(spec.class_weight[0], tuple):
        weights = dict(spec.class_weight)
        return [mpf(weights.get(c, spec.missing_class_weight)) for c in range(num_classes)]
    return [mpf(w) for w in spec.class_weight]


def _softmax_rows(
    spec: SoftmaxCrossEntropy,
    logits: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    sample_weight: Any,
    class_weight: Any,
    mask: Any,
    eps: float,
) -> tuple[tuple[int, ...], Iterator[tuple[tuple[int, ...], Row]]]:
    axis = 0 if logits.ndim == 1 else spec.axis % logits.ndim
    num_classes = logits.shape[axis]
    positions = logits.shape[:axis] + logits.shape[axis + 1 :]
    w = _class_weights(spec, class_weight, num_classes)
    e = mpf(spec.label_smoothing)

    def row(i: tuple[int, ...]) -> Row:
        at = [(*i[:axis], c, *i[axis:]) for c in range(num_classes)]
        valid = mask is None or bool(_at_prefix(mask, i))
        if targets.ndim < logits.ndim:
            y = int(targets[i])
            valid = valid and y != spec.ignore_index
            t = [mpf(c == y) for c in range(num_classes)]
        else:
            t = [mpf(float(targets[index])) if valid else mpf(0) for index in at]
        if not valid:
            return _row_of(mpf(0), at, valid=False)

        smoothed = [(1 - e) * t_c + e / num_classes for t_c in t]
        s = _sample_weight(sample_weight, i)
        if targets.ndim < logits.ndim:
            fits, used = 0 <= y < num_classes, w if e and spec.weighting != "label" else w and w[y : y + 1]
        else:
            fits, used = all(map(_is_share, t)), w if spec.weighting != "label" else w and [w[t.index(max(t))]]
        if not fits or not all(map(mp.isfinite, [s, *(used or ())])):
            return _row_of(mpf("nan"), at)
        finite = w and [w_c if mp.isfinite(w_c) else mpf(0) for w_c in w]
        x = [mpf(float(logits[index])) for index in at]
        weight, a = _weighted(spec, finite, t, smoothed)
        # The same of |w|: the sums of the absolute values of what these are the sums of.
        weight_size, sizes = _weighted(spec, finite and [abs(w_c) for w_c in finite], t, smoothed)
        a, sizes = [s * a_c for a_c in a], [abs(s) * size for size in sizes]
        found = _softmax(spec, x, a, sizes, mpf(eps))
        return Row(at, True, s * weight, abs(s) * weight_size, *found, [sum(sizes)] * num_classes)

    return positions, ((i, row(i)) for i in np.ndindex(positions))


def _row_of(x: Any, at: list[tuple[int, ...]], *, valid: bool = True) -> Row:
    """Return a row of which each number is the same."""
    return Row(at, valid, x, x, x, x, *([x] * len(at) for _ in range(3)))


def _is_share(t: Any) -> bool:
    return bool(mp.isfinite(t) and t >= 0)


def _weighted(spec: SoftmaxCrossEntropy, w: list[Any] | None, t: list[Any], smoothed: list[Any]) -> tuple[Any, Any]:
    """Return a row's class weight W, and its coefficients without the sample weight."""
    if w is None:
        return mpf(1), smoothed
    if spec.weighting == "label":
        weight = w[t.index(max(t))]
        return weight, [weight * t_c for t_c in smoothed]
    weight = sum(w_c * t_c for w_c, t_c in zip(w, t, strict=True))
    each = [w_c * t_c for w_c, t_c in zip(w, smoothed, strict=True)]
    return weight, each if spec.weighting == "term" else [sum(each) * t_c for t_c in smoothed]


def _softmax(
    spec: SoftmaxCrossEntropy, x: list[Any], a: list[Any], sizes: list[Any], eps: Any
) -> tuple[Any, Any, list[Any], list[Any]]:
    """Return sum_c a_c L_c and d/dx_c of it, each with its magnitude; ``sizes`` are those of the coefficients."""
    classes = range(len(x))
    if all(a_c == 0 for a_c in a):
        return mpf(0), mpf(0), [mpf(0)] * len(x), [mpf(0)] * len(x)
    total, whole = sum(a), sum(sizes)
    if spec.inputs == "log_probs":
        losses = [-x_c for x_c in x]
        return *_sum(a, sizes, losses), [-a_c for a_c in a], sizes
    if spec.inputs == "probs":
        return _probs(spec, x, a, sizes, eps)

    nan = mpf("nan")
    if any(mp.isnan(z) or z == mp.inf for z in x) or all(z == -mp.inf for z in x):
        return nan, nan, [nan] * len(x), [nan] * len(x)
    # 1 / q_c = sum_j exp(z_j - z_c), which is exactly 1 for a class on its own.
    inverse = [mp.inf if z == -mp.inf else sum(mp.exp(other - z) for other in x) for z in x]
    q = [1 / each for each in inverse]
    slopes = [total * q[c] - a[c] for c in classes]
    # For the dominant class the slope is also (A - a_c) - A (1 - q_c), both summed over the other classes.
    dominant = x.index(max(x))
    magnitudes = [whole * q[c] + sizes[c] for c in classes]
    magnitudes[dominant] = min(magnitudes[dominant], (whole - sizes[dominant]) + whole * (1 - q[dominant]))
    return *_sum(a, sizes, [mp.log(each) for each in inverse]), slopes, magnitudes


def _sum(a: list[Any], sizes: list[Any], losses: list[Any]) -> tuple[Any, Any]:
    """Return sum_c a_c L_c and its magnitude; a coefficient of 0 silences its term."""
    used = [c for c in range(len(a)) if a[c] != 0]
    return sum(a[c] * losses[c] for c in used), sum(sizes[c] * abs(losses[c]) for c in used)


def _probs(
    spec: SoftmaxCrossEntropy, x: list[Any], a: list[Any], sizes: list[Any], eps: Any
) -> tuple[Any, Any, list[Any], list[Any]]:
    classes = range(len(x))
    # Without a clip, to divide before it and after it is one.
    first = spec.renormalize == "before" or (spec.renormalize == "after" and spec.clip is None)
    then = spec.renormalize == "after" and not first
    before = _divisor(x) if first else mpf(1)
    p = [x_c / before for x_c in x]
    low = mpf(0) if spec.clip is None else eps if spec.clip == "dtype" else mpf(spec.clip)
    u = p if spec.clip is None else [min(max(p_c, low), 1 - low) for p_c in p]
    after = _divisor(u) if then else mpf(1)
    loss, loss_size = _sum(a, sizes, [_negative_log(u_c / after) for u_c in u])
    # A quotient or a bound that was rounded once moves its logarithm by as much, even where that is near 0.
    rounded = sum(sizes) if spec.clip is not None or spec.renormalize is not None else mpf(0)

    # d L / d u_k = A / sum u - a_k / u_k, the first where `after` divides; d p_k / d x_j = ([k = j] - p_k) / sum x.
    shared, shared_size = (sum(each) / after if then else mpf(0) for each in (a, sizes))
    slopes, magnitudes = [], []
    for c in classes:
        clipped = spec.clip is not None and (p[c] < low or p[c] > 1 - low)
        slopes.append(mpf(0) if clipped else shared - _quotient(a[c], u[c]))
        magnitudes.append(mpf(0) if clipped else shared_size + abs(_quotient(sizes[c], u[c])))
    if first:
        common = sum(slopes[c] * p[c] for c in classes)
        size = sum(magnitudes[c] * abs(p[c]) for c in classes)
        slopes = [(g - common) / before for g in slopes]
        magnitudes = [(g + size) / abs(before) for g in magnitudes]
    return loss, loss_size + rounded, slopes, magnitudes


def _divisor(p: list[Any]) -> Any:
    """Return the sum, NaN where dividing by it does not make these add up to 1."""
    total = sum(p)
    return mpf("nan") if total == 0 or mp.isinf(total) else total


def _negative_log(p: Any) -> Any:
    """Return -log p, infinite for p = 0, NaN where there is none."""
    return mpf("nan") if p < 0 else mp.inf if p == 0 else -mp.log(p)


def _quotient(a: Any, u: Any) -> Any:
    """Return a / u of the slope of log u: 0 for a = 0 whatever u, infinite for u = 0, NaN where there is no log u."""
    return mpf(0) if a == 0 else mpf("nan") if u < 0 else a * mp.inf if u == 0 else a / u


def _sigmoid_rows(
    spec: SigmoidCrossEntropy,
    logits: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    sample_weight: Any,
    class_weight: Any,
    mask: Any,
    eps: float,
) -> tuple[tuple[int, ...], Iterator[tuple[tuple[int, ...], Row]]]:
    pair = spec.class_weight if class_weight is None else class_weight
    w_neg, w_pos = (np.broadcast_to(np.asarray(w, np.float64), logits.shape) for w in pair or (1.0, 1.0))
    e = mpf(spec.label_smoothing)
    outputs = logits.shape[-1] if spec.average_outputs else 1

    def element(index: tuple[int, ...], position: tuple[int, ...]) -> Row:
        valid = mask is None or bool(_at_prefix(mask, position))
        t = mpf(float(targets[index])) if valid else mpf(0)
        if not valid or (spec.ignore_label is not None and t == spec.ignore_label):
            return _row_of(mpf(0), [index], valid=False)
        s = _sample_weight(sample_weight, position)
        neg, pos = mpf(float(w_neg[index])), mpf(float(w_pos[index]))
        used = [neg, pos] if spec.weighting == "term" else [pos if t > 0.5 else neg]
        if not _is_share(t) or not all(map(mp.isfinite, [s, *used])):
            return _row_of(mpf("nan"), [index])
        smoothed = (1 - e) * t + e / 2
        weight, weight_size = (1 - t) * neg + t * pos, abs((1 - t) * neg) + abs(t * pos)
        if spec.weighting == "label":
            neg = pos = weight = pos if t > 0.5 else neg
            weight_size = abs(weight)
        pos, neg = s * pos * smoothed / outputs, s * neg * (1 - smoothed) / outputs
        loss, size, slope, slope_size = _sigmoid(spec, mpf(float(logits[index])), pos, neg, mpf(eps))
        return Row(
            [index], True, s * weight, abs(s) * weight_size, loss, size, [slope], [slope_size], [abs(pos) + abs(neg)]
        )

    if not spec.average_outputs:
        return logits.shape, ((i, element(i, i)) for i in np.ndindex(logits.shape))

    def row(i: tuple[int, ...]) -> Row:
        elements = [element((*i, j), i) for j in range(outputs)]
        return Row(
            [index for each in elements for index in each.inputs],
            any(each.valid for each in elements),
            sum(each.weight for each in elements) / outputs,
            sum(each.weight_magnitude for each in elements) / outputs,
            sum(each.loss for each in elements),
            sum(each.loss_magnitude for each in elements),
            [g for each in elements for g in each.slopes],
            [g for each in elements for g in each.magnitudes],
            [a for each in elements for a in each.totals],
        )

    positions = logits.shape[:-1]
    return positions, ((i, row(i)) for i in np.ndindex(positions))


def _sigmoid(spec: SigmoidCrossEntropy, x: Any, pos: Any, neg: Any, eps: Any) -> tuple[Any, Any, Any, Any]:
    """Return pos L+ + neg L- and its slope, each with its magnitude."""
    if pos == 0 and neg == 0:
        return mpf(0), mpf(0), mpf(0), mpf(0)
    rounded = mpf(0)
    if spec.inputs == "logits":
        q, q_not = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
        slope_pos, slope_neg = q_not, q
    elif spec.inputs == "log_probs":
        q, q_not = mp.exp(x), 1 - mp.exp(x)
        slope_pos, slope_neg = mpf(1), _quotient(q, q_not)
    else:
        low = mpf(0) if spec.clip is None else eps if spec.clip == "dtype" else mpf(spec.clip)
        q = x if spec.clip is None else min(max(x, low), 1 - low)
        q_not = 1 - q
        clipped = spec.clip is not None and (x < low or x > 1 - low)
        slope_pos, slope_neg = (mpf(0) if clipped else _quotient(mpf(1), p) for p in (q, q_not))
        rounded = abs(pos) + abs(neg) if spec.clip is not None else rounded
    terms = [a * _negative_log(p) for a, p in ((pos, q), (neg, q_not)) if a != 0]
    down = pos * slope_pos if pos != 0 else mpf(0)
    up = neg * slope_neg if neg != 0 else mpf(0)
    return sum(terms), sum(map(abs, terms)) + rounded, up - down, abs(up) + abs(down)


def _reduce(
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    shape: tuple[int, ...],
    positions: tuple[int, ...],
    rows: Iterator[tuple[tuple[int, ...], Row]],
    denominator: Any,
    upstream: Any,
) -> Truth:
    by_position = dict(rows)
    each, condition = list(by_position.values()), mpf(1)
    if spec.reduction == "none":
        loss = _filled(positions, {i: row.loss for i, row in by_position.items()})
        loss_magnitude = _filled(positions, {i: row.loss_magnitude for i, row in by_position.items()})
        scale = dict.fromkeys(by_position, mpf(1))
    else:
        total, size = (sum((getattr(row, name) for row in each), mpf(0)) for name in ("loss", "loss_magnitude"))
        factor = mpf(1)
        if spec.reduction == "mean_over_weights" and denominator is None:
            whole, cancelled = sum(row.weight_magnitude for row in each), abs(sum(row.weight for row in each))
            condition = whole / cancelled if cancelled else condition
        if spec.reduction != "sum":
            d = _denominator(spec.reduction, positions, each) if denominator is None else mpf(float(denominator))
            d = d if mp.isfinite(d) else mpf("nan")
            if d == 0:
                total, size, factor = mpf("nan" if spec.zero_denominator == "nan" else 0), mpf(0), mpf(0)
            else:
                total, size, factor = total / d, condition * size / abs(d), 1 / d
        loss, loss_magnitude = _filled((), {(): total}), _filled((), {(): size})
        scale = dict.fromkeys(by_position, factor)

    gradient, magnitude, row_scale = {}, {}, {}
    for i, row in by_position.items():
        u = mpf(1) if upstream is None else mpf(float(_at_prefix(upstream, i if spec.reduction == "none" else ())))
        s = scale[i] * u
        for index, slope, terms, total in zip(row.inputs, row.slopes, row.magnitudes, row.totals, strict=True):
            gradient[index] = mpf(0) if s == 0 or (slope == 0 and terms == 0) else slope * s
            magnitude[index] = mpf(0) if s == 0 else terms * condition * abs(s)
            row_scale[index] = total * condition * abs(s)
    arrays = (_filled(shape, entries) for entries in (gradient, magnitude, row_scale))
    gradient_array, magnitude_array, scale_array = arrays
    return Truth(loss, gradient_array, loss_magnitude, magnitude_array, scale_array)


def _denominator(reduction: str, positions: tuple[int, ...], rows: list[Row]) -> Any:
    return {
        "mean_over_weights": sum((row.weight for row in rows), mpf(0)),
        "mean_over_valid": mpf(sum(row.valid for row in rows)),
        "mean_over_positions": mpf(len(rows)),
        "mean_over_batch": mpf(positions[0] if positions else 1),
        "mean_over_nonzero": mpf(sum(row.weight != 0 for row in rows)),
    }[reduction]


def _filled(shape: tuple[int, ...], entries: dict[tuple[int, ...], Any]) -> Numbers:
    array = np.empty(shape, dtype=object)
    for index, value in entries.items():
        array[index] = value
    return array
