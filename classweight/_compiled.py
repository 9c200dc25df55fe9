"""The loss of few rows as one compiled function, in float64 inside: imported where the extra ``fast`` is installed."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np


def _loss_and_grad(z: Any, y: Any, w: Any, reduction: int, slopes: Any) -> float:
    """Return the loss, NaN where another kernel is needed; ``slopes`` becomes its gradient unless it is empty.

    ``z`` has shape (N, C), ``y`` (N,), ``w`` (C,), or (0,) for no weights. What is divided by is, by ``reduction``,
    1, the weights' sum, or the number of those that are not 0, or of all.
    """
    n, num_classes = z.shape
    denominator = 0.0
    for i in range(n):
        if not 0 <= y[i] < num_classes:
            return math.nan
        weight = w[y[i]] if w.size else 1.0
        if reduction == 1:
            denominator += weight
        elif reduction > 1:
            denominator += reduction == 3 or weight != 0
    if reduction == 0:
        denominator = 1.0
    if denominator == 0:
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


def _compile() -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(_loss_and_grad)
    except RuntimeError:  # no folder that can be written to: it is compiled in each process
        return numba.njit(**options)(_loss_and_grad)


loss_and_grad = _compile()
