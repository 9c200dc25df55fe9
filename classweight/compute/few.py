"""Index targets for few logits on the host, in the fewest operations, for what these take is time of Python's.

Without the extra ``fast`` the numbers are those of `closed_form`, to the last bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..call import Call
from .blocks import FEW_CLASSES
from .kernels import SMALL

Array = np.ndarray[Any, Any]
Result = tuple[Any, Array | None]

MOST = 1 << 17
"""Logits, above which the general path costs no more."""
MOST_COMPILED = 1 << 12
"""Logits, above which NumPy's vectorised exp makes up for its calls."""
REDUCTIONS = {"sum": 0, "mean_over_weights": 1, "mean_over_nonzero": 2}
FLOATS = (np.dtype("float32"), np.dtype("float64"))
_NOTHING = {dtype: np.empty((0, 0), dtype) for dtype in FLOATS}
NO_WEIGHTS = np.empty(0)
_ONE = np.ones(1)  # no scalar: before NumPy 2 a product with one has the other's type


def of_call(call: Call, *, gradient: bool) -> Result | None:
    """Return the loss and its gradient of a call on NumPy's arrays, or None where the general path is needed."""
    if not call.none_ignored or call.axis != 1 or len(call.shape) != 2 or not call.hard or not is_plain(call.spec):
        return None
    if call.sample_weight is not None or call.mask is not None or call.denominator is not None:
        return None
    w = None if call.class_weight is None else call.class_weight.astype(np.float64, copy=False)
    return loss_and_grad(call.spec, call.logits, call.targets.astype(np.int64, copy=False), w, gradient=gradient)


def is_plain(spec: Any) -> bool:
    """Whether the loss is a sum of rows of logits, or a mean, without smoothing."""
    return spec.inputs == "logits" and not spec.label_smoothing and spec.reduction != "none"


def loss_and_grad(spec: Any, z: Array, y: Array, w: Array | None, *, gradient: bool) -> Result | None:
    """Return the reduced loss, and its gradient or None; nothing at all where the general path is needed.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy
        A plain one, whose ignored index is none of the classes.
    z : ndarray, shape (N, C)
        Logits, the classes last.
    y : ndarray of int64, shape (N,)
        Class indices.
    w : ndarray of float64, shape (C,), optional
        Class weights, valid ones.
    """
    n, num_classes = z.shape
    if not 1 < n <= MOST // num_classes:
        return None
    if not (z.flags.c_contiguous and z.dtype.isnative):  # the bits are to be the same wherever the numbers lie
        z = np.ascontiguousarray(z, z.dtype.newbyteorder("="))
    if z.dtype not in FLOATS:
        return None
    if z.size <= MOST_COMPILED and (kernels := compiled()) is not None:
        slopes = np.empty_like(z) if gradient else _NOTHING[z.dtype]
        value = kernels.loss_and_grad(z, y, NO_WEIGHTS if w is None else w, reduction_of(spec), slopes)
        return (z.dtype.type(value), slopes if gradient else None) if value == value else None
    if not (np.minimum.reduce(z, None) >= -SMALL and np.maximum.reduce(z, None) <= SMALL):
        return None
    alpha = coefficients(spec, y, w, num_classes)
    if alpha is None:
        return None
    inside = z.dtype if spec.precision == "native" else FLOATS[1]

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


def coefficients(spec: Any, y: Array, w: Array | None, num_classes: int) -> Array | None:
    """Return what each row's loss is multiplied by, or one number for all; None where a target or the sum is unusual.

    Parameters are those of `loss_and_grad`.
    """
    # Seen as unsigned, a negative index is a large one.
    if np.maximum.reduce(y.view(np.uint64)) >= num_classes:
        return None
    alpha = _ONE if w is None else w.take(y)
    if spec.reduction == "sum":
        return alpha
    denominator: Any = len(y)
    if w is not None and spec.reduction == "mean_over_weights":
        denominator = np.add.reduce(alpha)
    elif w is not None and spec.reduction == "mean_over_nonzero":
        denominator = np.count_nonzero(alpha)
    return alpha / denominator if denominator else None


def reduction_of(spec: Any) -> int:
    """Return the number by which the compiled kernels know a reduction."""
    return REDUCTIONS.get(spec.reduction, 3)


@lru_cache(maxsize=1)
def compiled() -> Any:
    """Return the compiled kernels, where there is a Numba to compile them: that is an extra, for it takes a second."""
    try:
        from . import _compiled
    except ImportError:
        return None
    return _compiled


@lru_cache(maxsize=64)
def _offsets(n: int, num_classes: int) -> Array:
    """Return where a row's entries begin: one after another class by class, else each after all classes of another."""
    return np.arange(n) if num_classes <= FEW_CLASSES else np.arange(0, n * num_classes, num_classes)
