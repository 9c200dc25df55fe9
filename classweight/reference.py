"""The definition in float64 NumPy, as the equations read: slow, whole arrays, no lowering, no kernels.

It exists to be compared with: tests hold the adapters against it, and it against 50-digit arithmetic. Targets and
weights are taken as they are; `classweight.adapters.numpy` checks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

Float = npt.NDArray[np.float64]


def reference(
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    class_weight: Any = None,
    mask: npt.ArrayLike | None = None,
    denominator: float | None = None,
    upstream: npt.ArrayLike = 1.0,
) -> tuple[Float, Float]:
    """Return the loss and its gradient with respect to the input, times ``upstream``.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
    logits : array-like
        The input, which ``spec.inputs`` names.
    targets, sample_weight, class_weight, mask, denominator
        As in `classweight.adapters.numpy.loss`.
    upstream : array-like
        The gradient of what follows with respect to the loss, in the loss's shape.

    Returns
    -------
    loss : ndarray of float64
        In nats; of the position shape for ``reduction="none"``, else 0-d.
    gradient : ndarray of float64
        In the logits' shape.

    Examples
    --------
    >>> loss, gradient = reference(SoftmaxCrossEntropy(), [[1.0, 0.0]], [1])
    >>> print(loss.round(7), gradient.round(7))
    1.3132617 [[ 0.7310586 -0.7310586]]
    """
    z, t = np.asarray(logits, np.float64), np.asarray(targets)
    with np.errstate(all="ignore"):
        if isinstance(spec, SoftmaxCrossEntropy):
            axis = 0 if z.ndim == 1 else spec.axis
            z = np.moveaxis(z, axis, -1)
            hard = t.ndim < z.ndim
            t = t if hard else np.moveaxis(t, axis, -1)
            a, weights, valid = softmax_terms(spec, z, t, hard, sample_weight, class_weight, mask)
            rows, slopes = _softmax(spec, z, a, _eps(logits))
        else:
            axis = -1
            pos, neg, weights, valid = sigmoid_terms(spec, z, t, sample_weight, class_weight, mask)
            rows, slopes = _sigmoid(spec, z, pos, neg, _eps(logits))
            if spec.average_outputs:
                rows = rows.sum(-1)
        loss, scale = _reduce(spec, rows, weights, valid, denominator)
        scale = np.broadcast_to(scale * np.asarray(upstream, np.float64), rows.shape)
        if scale.ndim < slopes.ndim:
            scale = scale[..., None]
        gradient = np.where((scale == 0) | (slopes == 0), 0.0, slopes * scale)
    return loss, np.moveaxis(gradient, -1, axis) if z.ndim else gradient


def _eps(logits: Any) -> float:
    dtype = np.asarray(logits).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def _spread(weight: Any, shape: tuple[int, ...], default: Any) -> Any:
    """Return a weight or mask given for a prefix of ``shape`` in all of it."""
    if weight is None:
        return np.full(shape, default)
    weight = np.asarray(weight)
    return np.broadcast_to(weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)), shape)


def softmax_terms(
    spec: SoftmaxCrossEntropy, z: Float, t: Any, hard: bool, sample_weight: Any, class_weight: Any, mask: Any
) -> tuple[Float, Float, Any]:
    """Return a_ic, W_i s_i and v_i."""
    num_classes = z.shape[-1]
    valid = _spread(mask, z.shape[:-1], True)
    if hard:
        valid = valid & (t != spec.ignore_index if spec.ignore_index is not None else True)
        t = np.where(valid, t, 0)[..., None] == np.arange(num_classes)
    t = np.where(valid[..., None], t, 0).astype(np.float64)
    s = np.where(valid, _spread(sample_weight, z.shape[:-1], 1.0), 0.0)
    smoothed = (1 - spec.label_smoothing) * t + spec.label_smoothing / num_classes

    w = spec.class_weight_values(num_classes) if class_weight is None else class_weight
    if w is None:
        return s[..., None] * smoothed, s, valid
    w = np.asarray(w, np.float64)
    if spec.weighting == "label":
        label = w[t.argmax(-1)]
        return (s * label)[..., None] * smoothed, s * label, valid
    if spec.weighting == "expected":
        return (s * (w * smoothed).sum(-1))[..., None] * smoothed, s * (w * t).sum(-1), valid
    return s[..., None] * w * smoothed, s * (w * t).sum(-1), valid


def _softmax(spec: SoftmaxCrossEntropy, z: Float, a: Float, eps: float) -> tuple[Float, Float]:
    """Return sum_c a_ic L_ic and d/dz_ic of it."""
    alive = a.any(-1, keepdims=True)
    z = np.where(alive, z, 1.0)
    total = a.sum(-1, keepdims=True)
    if spec.inputs == "logits":
        k = z.argmax(-1)[..., None] == np.arange(z.shape[-1])
        m = z.max(-1, keepdims=True)
        e = np.where(k, 0.0, np.exp(z - m)) + 0 * m  # NaN where the largest logit is not finite
        others = e.sum(-1, keepdims=True)
        losses = np.log1p(others) + (m - z)
        rest = np.where(k, 0.0, a).sum(-1, keepdims=True)
        slopes = np.where(k, rest - total * others / (1 + others), total * e / (1 + others) - a)
    elif spec.inputs == "log_probs":
        losses, slopes = -z, -a
    else:
        # Without a clip, to divide before it and after it is one.
        first = spec.renormalize == "before" or (spec.renormalize == "after" and spec.clip is None)
        before = _divisor(z) if first else 1.0
        p = z / before
        u, clipped = _clip(spec, p, eps)
        after = _divisor(u) if spec.renormalize == "after" and not first else 1.0
        losses = -np.log(u / after)
        # L = -sum a log u + A log sum u: the second term only where a renormalization divides by the sum.
        slopes = np.where(a == 0, 0.0, -a / _of_log(u))
        if spec.renormalize == "after" and not first:
            slopes = slopes + total / after
        slopes = np.where(clipped, 0.0, slopes)
        if first:
            slopes = (slopes - np.where(slopes == 0, 0.0, slopes * p).sum(-1, keepdims=True)) / before
    rows = (a * np.where(a == 0, 0.0, losses)).sum(-1)
    return rows, np.where(alive, slopes, 0.0)


def _clip(spec: SoftmaxCrossEntropy | SigmoidCrossEntropy, p: Float, eps: float) -> tuple[Float, Any]:
    """Return the probabilities as they are clipped, and where they were."""
    if spec.clip is None:
        return p, np.full(p.shape, False)
    low = eps if spec.clip == "dtype" else spec.clip
    return np.clip(p, low, 1 - low), (p < low) | (p > 1 - low)


def _divisor(p: Float) -> Float:
    """Return what a row is divided by to add up to 1; NaN where nothing makes it do so."""
    total = p.sum(-1, keepdims=True)
    return np.where((total == 0) | np.isinf(total), np.nan, total)


def _of_log(p: Float) -> Float:
    """Return what the slope of log p divides by, NaN where there is no log p."""
    return np.where(p < 0, np.nan, np.abs(p))


def sigmoid_terms(
    spec: SigmoidCrossEntropy, z: Float, t: Any, sample_weight: Any, class_weight: Any, mask: Any
) -> tuple[Float, Float, Float, Any]:
    """Return pos_e, neg_e, and W s and v of each position."""
    if spec.average_outputs:
        valid = np.broadcast_to(_spread(mask, z.shape[:-1], True)[..., None], z.shape)
        s = np.broadcast_to(_spread(sample_weight, z.shape[:-1], 1.0)[..., None], z.shape)
    else:
        valid, s = _spread(mask, z.shape, True), _spread(sample_weight, z.shape, 1.0)
    if spec.ignore_label is not None:
        valid = valid & (t != spec.ignore_label)
    t = np.where(valid, t, 0).astype(np.float64)
    s = np.where(valid, s, 0.0)
    smoothed = (1 - spec.label_smoothing) * t + spec.label_smoothing / 2
    opposite = (1 - spec.label_smoothing) * (1 - t) + spec.label_smoothing / 2
    w_neg, w_pos = map(np.asarray, class_weight or spec.class_weight or (1.0, 1.0))
    if spec.weighting == "label":
        weight = np.where(t > 0.5, w_pos, w_neg)
        pos, neg = s * weight * smoothed, s * weight * opposite
    else:
        weight = (1 - t) * w_neg + t * w_pos
        pos, neg = s * w_pos * smoothed, s * w_neg * opposite
    weights = s * weight
    if spec.average_outputs:
        return pos / z.shape[-1], neg / z.shape[-1], weights.mean(-1), valid.any(-1)
    return pos, neg, weights, valid


def _sigmoid(spec: SigmoidCrossEntropy, z: Float, pos: Float, neg: Float, eps: float) -> tuple[Float, Float]:
    """Return pos_e L+_e + neg_e L-_e and d/dz_e of it."""
    alive = (pos != 0) | (neg != 0)
    z = np.where(alive, z, 0.5)
    if spec.inputs == "logits":
        loss_pos, loss_neg = np.logaddexp(0.0, -z), np.logaddexp(0.0, z)
        slope_pos, slope_neg = -np.exp(-loss_neg), np.exp(-loss_pos)
    elif spec.inputs == "probs":
        p, clipped = _clip(spec, z, eps)
        loss_pos, loss_neg = -np.log(p), -np.log1p(-p)
        slope_pos, slope_neg = (np.where(clipped, 0.0, g) for g in (-1 / _of_log(p), 1 / _of_log(1 - p)))
    else:
        not_p = np.where(z > 0, np.nan, -np.expm1(z))  # there is no 1 - p where p is above 1
        loss_pos, loss_neg = -z, -np.where(z > -np.log(2), np.log(not_p), np.log1p(-np.exp(z)))
        slope_pos, slope_neg = -np.ones_like(z), np.exp(z) / np.abs(not_p)
    rows = pos * np.where(pos == 0, 0.0, loss_pos) + neg * np.where(neg == 0, 0.0, loss_neg)
    slopes = pos * np.where(pos == 0, 0.0, slope_pos) + neg * np.where(neg == 0, 0.0, slope_neg)
    return rows, np.where(alive, slopes, 0.0)


def _reduce(
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy, rows: Float, weights: Float, valid: Any, denominator: float | None
) -> tuple[Float, Float | float]:
    """Return the loss and what a row's gradient is multiplied by."""
    if spec.reduction == "none":
        return rows, 1.0
    total = np.asarray(rows.sum())
    if spec.reduction == "sum":
        return total, 1.0
    if denominator is None:
        denominator = {
            "mean_over_weights": weights.sum(),
            "mean_over_valid": valid.sum(),
            "mean_over_positions": rows.size,
            "mean_over_batch": rows.shape[0] if rows.ndim else 1,
            "mean_over_nonzero": np.count_nonzero(weights),
        }[spec.reduction]
    if denominator == 0:
        return np.asarray(0.0 if spec.zero_denominator == "zero" else np.nan), 0.0
    return total / denominator, 1 / np.float64(denominator)
