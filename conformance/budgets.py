"""How many ULPs native precision and float64 may be off, from an error analysis rather than from what was measured.

In units u of half an ULP at 1, a relative error of k u is at most k ULPs. A careful loss computes, in order:

- z_c - m, rounded once: an absolute error of |z_c - m| u, which exp turns into a relative one. Terms whose exp is
  below the smallest normal number are not counted, for they may be flushed. The loss takes from it only the gap
  between the two largest logits, and none where the target is not the largest: there log S + (m - z_y) holds it.
- exp, and at the end log or log1p: 2 u each, what the libraries state.
- a sum over C classes: log2 C u, pairwise.
- the coefficient - sample weight, class weight, smoothing, target - in at most 4 roundings, its product with the row,
  the division by S, the denominator, the upstream gradient and the result: 8 u in all.

Half types compute in float32 and round once more, so their own ULP is 2**13 (float16) or 2**16 (bfloat16) times larger.
Where terms cancel the same relative error is of the terms: the ULP is then that of their absolute sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .floats import FORMATS

FIXED = 12.0
# A budget that lets a wrong formula through is worth nothing.
LARGEST = 300.0


def budgets(z: npt.NDArray[Any], dtype: str, *, inputs: str = "logits", softmax: bool = True) -> tuple[float, float]:
    """Return the budgets of loss and gradient for inputs whose classes are on the last axis.

    float64 is also what exact precision computes in.
    """
    inside = FORMATS["float64" if dtype == "float64" else "float32"]
    loss = gradient = FIXED
    if softmax and z.size:
        loss = gradient = FIXED + math.log2(z.shape[-1])
        if inputs == "logits":
            first, largest = _gaps(z, -math.log(inside.smallest_normal))
            loss, gradient = loss + first, gradient + largest
    per_ulp = 2.0 ** (inside.precision - FORMATS[dtype].precision)
    loss, gradient = (_stated(b, per_ulp) for b in (loss, gradient))
    return loss, gradient


def _gaps(z: npt.NDArray[Any], limit: float) -> tuple[float, float]:
    """Return the largest gap between a row's two largest logits, and between any two, up to ``limit``."""
    z = np.sort(np.where(np.isfinite(z), z, -np.inf), -1)[..., ::-1]
    with np.errstate(invalid="ignore"):
        gaps = z[..., :1] - z
    gaps = np.where(gaps <= limit, gaps, 0.0)
    return float(gaps[..., 1:2].max(initial=0.0)), float(gaps.max(initial=0.0))


def _stated(budget: float, per_ulp: float) -> float:
    """Return the budget in the result's own ULPs, rounded up to three digits."""
    if per_ulp == 1:
        return float(math.ceil(budget))
    return math.ceil(1000 * (0.5 + budget / per_ulp)) / 1000
