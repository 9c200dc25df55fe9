"""Some steps of NumPy: threads and workers have the bits of one, and memory stays; `nox -s soak` runs many more."""

from __future__ import annotations

from .processes import assert_steps_hold


def test_steps() -> None:
    assert_steps_hold("numpy", 4000)
