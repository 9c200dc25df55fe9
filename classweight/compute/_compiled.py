"""Compiled functions, by the extra ``fast``: the loss of few rows, and what follows the exponentials of more."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .kernels import LIMIT

LARGEST = LIMIT[4]
# Classes that are added up in the logits' own type: of many equal terms all would be rounded to the same side.
STRETCH = 256


def _denominator(y: Any, num_classes: int, w: Any, reduction: int) -> float:
    """Return what is divided by: by ``reduction`` 1, the weights' sum, the number of those that are not 0, or of all.

    NaN where another kernel is needed: a target or a weight is bad, or there is nothing to divide by. ``w`` has shape
    (C,), or (0,) for no weights.
    """
    for c in range(w.size):
        if not math.isfinite(w[c]):
            return math.nan
    total = 0.0
    for i in range(len(y)):
        if not 0 <= y[i] < num_classes:
            return math.nan
        if reduction == 1:
            total += w[y[i]] if w.size else 1.0
        else:
            total += reduction == 3 or not w.size or w[y[i]] != 0
    if reduction == 0:
        return 1.0
    return total if total != 0 else math.nan


def _loss_and_grad(z: Any, y: Any, w: Any, reduction: int, slopes: Any) -> float:
    """Return the loss, NaN where another kernel is needed; ``slopes`` becomes its gradient unless it is empty.

    ``z`` has shape (N, C), ``y`` (N,); the others are those of `_denominator`.
    """
    n, num_classes = z.shape
    denominator = denominator_of(y, num_classes, w, reduction)
    if denominator != denominator:
        return math.nan
    total = 0.0
    e = np.empty(num_classes)
    for i in range(n):
        top = np.float64(z[i, 0])
        for c in range(1, num_classes):
            top = max(top, np.float64(z[i, c]))
        others = 0.0
        for c in range(num_classes):
            e[c] = math.exp(np.float64(z[i, c]) - top)
            if c != y[i]:
                others += e[c]
        gap = top - np.float64(z[i, y[i]])
        own = e[y[i]]
        alpha = (w[y[i]] if w.size else 1.0) / denominator
        total += alpha * (math.log1p(others) if gap == 0 else math.log(others + own) + gap)
        if slopes.size:
            scale = alpha / (others + own)
            for c in range(num_classes):
                slopes[i, c] = e[c] * scale
            slopes[i, y[i]] = -others * scale
    return total if math.isfinite(total) else math.nan


def _of_exponentials(e: Any, y: Any, w: Any, reduction: int) -> float:
    """Return the loss, NaN where another kernel is needed; the exponentials, a factor to a row, become its gradient.

    Losses are to be below ``LARGEST``: beyond it, exponentials are lost.
    """
    n, num_classes = e.shape
    denominator = denominator_of(y, num_classes, w, reduction)
    if denominator != denominator:
        return math.nan
    total = 0.0
    for i in range(n):
        row, at = e[i], y[i]
        own = np.float64(row[at])
        row[at] = 0
        others = 0.0
        for start in range(0, num_classes, STRETCH):
            part, stretch = row[at], row[start : start + STRETCH]
            for c in range(len(stretch)):
                part += stretch[c]
            others += part
        alpha = (w[at] if w.size else 1.0) / denominator
        loss = math.log1p(others / own)
        if not loss < LARGEST:
            return math.nan
        total += alpha * loss
        row[at] = alpha / (others + own)
        scale = row[at]
        for c in range(num_classes):
            row[c] *= scale
        row[at] = -others * scale
    return total


def _compile(function: Any, **options: Any) -> Any:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written to: it is compiled in each process
        return numba.njit(**options)(function)


denominator_of = _compile(_denominator)
loss_and_grad = _compile(_loss_and_grad)
# Sums may be taken in any order: a vector's width of them at a time.
of_exponentials = _compile(_of_exponentials, fastmath={"reassoc"})
