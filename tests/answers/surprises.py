"""The batch on which the frameworks surprise, and what an answer must say. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from classweight import identify

Z = np.array([[2, -1, 0.5], [0, 1, -2], [0.5, 0.5, 3], [-1, 2, 0]])
T = np.array([0, 1, 2, 1])
W = [1.0, 2.0, 5.0]
S = np.array([1, 0.5, 2, 0])
Y = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.25, 0.25]])
ONE_HOT = np.eye(3)[T]
IGNORED = np.array([0, 1, -1, 2])
KEPT = (IGNORED >= 0).astype(float)
ROWS = np.where(IGNORED >= 0, IGNORED, 0)
NOTHING = np.full(4, -1)
SUMMED_MEANS = "the sum of the means of 2 micro-batches of 2, not divided by their number"

rng = np.random.default_rng(20261121)
# Of each class some, so that no two ways agree by accident.
LARGE_Z, LARGE_T = 2 * rng.normal(size=(96, 5)), rng.integers(5, size=96)
LARGE_W, LARGE_S = rng.uniform(0.3, 3, 5), rng.uniform(0.2, 2, 96)
STEPS_Z, STEPS_T = rng.normal(size=(3, 3, 3)), rng.integers(3, size=(3, 3))
MAPS_Z, MAPS_T = rng.normal(size=(2, 3, 2, 2)), rng.integers(3, size=(2, 2, 2))
MAPS_T[0, 0, 0] = -1


def assert_named(loss: Any, call: str, *changes: str, logits: Any = Z, targets: Any = T, **given: Any) -> Any:
    """Assert that an answer's best explanations hold this call with these changes, and that it is no chance."""
    answer = identify(loss, logits, targets, **given)
    found = [(match.changes, match.calls) for match in answer.best]
    assert any(changes == done and call in calls for done, calls in found), f"{answer}"
    assert answer.by_chance is None or answer.by_chance < 0.05, f"{answer}"
    return answer
