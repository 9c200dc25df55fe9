"""Index targets for few logits on the host, in the fewest operations, for what these take is time of Python's.

The numbers are those of `closed_form`, to the last bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .blocks import FEW_CLASSES
from .call import Call
from .kernels import SMALL

Array = np.ndarray[Any, Any]
Result = tuple[Any, Array | None]

MOST = 1 << 14
"""Logits, above which the general path costs no more."""
FLOATS = (np.dtype("float32"), np.dtype("float64"))
_ONE = np.ones(1)  # no scalar: before NumPy 2 a product with one has the other's type


def of_call(call: Call, *, gradient: bool) -> Result | None:
    """Return the loss and its gradient of a call on NumPy's arrays, or None where the general path is needed."""
    if not call.none_ignored or call.axis != 1 or len(call.shape) != 2 or not call.hard:
        return None
    if call.sample_weight is not None or call.mask is not None or call.denominator is not None:
        return None
    w = None if call.class_weight is None else call.class_weight.astype(np.float64, copy=False)
    return loss_and_grad(call.spec, call.logits, call.targets.astype(np.int64, copy=False), w, gradient=gradient)


def loss_and_grad(spec: Any, z: Array, y: Array, w: Array | None, *, gradient: bool) -> Result | None:
    """Return the reduced loss, and its gradient or None; nothing at all where the general path is needed.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy
    z : ndarray, shape (N, C)
        Logits, the classes last.
    y : ndarray of int64, shape (N,)
        Class indices, all of them valid and none of them ignored.
    w : ndarray of float64, shape (C,), optional
        Class weights.
    """
    reduction = spec.reduction
    if spec.inputs != "logits" or spec.label_smoothing or reduction == "none":
        return None
    n, num_classes = z.shape
    if z.dtype not in FLOATS or not z.flags.c_contiguous or not 1 < n <= MOST // num_classes:
        return None
    if not (np.minimum.reduce(z, None) >= -SMALL and np.maximum.reduce(z, None) <= SMALL):
        return None
    inside = z.dtype if spec.precision == "native" else FLOATS[1]
    alpha = _ONE if w is None else w.take(y)
    if reduction != "sum":
        denominator: Any = n
        if w is not None and reduction == "mean_over_weights":
            denominator = np.add.reduce(alpha)
        elif w is not None and reduction == "mean_over_nonzero":
            denominator = np.count_nonzero(alpha)
        if not denominator:
            return None
        alpha = alpha / denominator

    by_class = num_classes <= FEW_CLASSES
    e = np.exp(z.T if by_class else z, dtype=inside, order="C")
    flat, at = e.reshape(-1), _offsets(n, num_classes) + (y * n if by_class else y)
    own = flat.take(at)
    flat[at] = 0.0
    others = np.add.reduce(e, 0 if by_class else 1)
    # The weights are float64, whatever the logits are.
    value = np.add.reduce(alpha * np.log1p(others / own)).astype(z.dtype)
    if not gradient:
        return value, None
    own += others
    scale = np.divide(alpha, own, np.empty(n, inside))
    flat[at] = np.negative(others, others)
    e *= scale if by_class else scale[:, None]
    return value, (e.T if by_class else e).astype(z.dtype, order="C", copy=False)


@lru_cache(maxsize=64)
def weights(spec: Any, num_classes: int) -> Array | None:
    """Return a spec's class weights."""
    return None if spec.class_weight is None else np.asarray(spec.class_weight_values(num_classes), np.float64)


@lru_cache(maxsize=64)
def _offsets(n: int, num_classes: int) -> Array:
    """Return where a row's entries begin: one after another class by class, else each after all classes of another."""
    return np.arange(n) if num_classes <= FEW_CLASSES else np.arange(0, n * num_classes, num_classes)
