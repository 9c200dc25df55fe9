"""A leak is noticed."""

from __future__ import annotations

import pytest

from .steps import soak


def test_steps_that_keep_their_batches_are_noticed() -> None:
    kept: list[bytes] = []

    def step(number: int) -> bytes:
        kept.append(bytes([number % 256]) * 10_000)
        return kept[-1]

    with pytest.raises(AssertionError, match=r"\d+ bytes a step"):
        soak(step, 2000)
