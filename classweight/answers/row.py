"""One call's row of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Two calls give the same number where they differ by the rounding of float64 alone.
SAME = 1e-10


@dataclass(frozen=True)
class Row:
    """What one call gives for the batch; ``reason`` says why it gives nothing.

    ``loss`` is in nats; ``gradient_norm`` is the Euclidean norm of d loss / d logits, whatever the call is handed;
    ``shares`` are each class's parts of that gradient's absolute sum, by the class that a position is labelled with.
    """

    framework: str
    call: str
    formula: str = ""
    loss: float | None = None
    denominator: float | None = None
    gradient_norm: float | None = None
    shares: tuple[float, ...] = ()
    note: str = ""
    reason: str = ""

    def same(self, other: Row) -> bool:
        """Whether both have the same numbers."""
        mine, theirs = ([x.loss, x.denominator, x.gradient_norm, *x.shares] for x in (self, other))
        close = np.allclose(np.array(mine, float), np.array(theirs, float), rtol=SAME, atol=SAME, equal_nan=True)
        return bool(close)
