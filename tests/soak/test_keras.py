"""Some steps of Keras on a backend: threads have the bits of one, and memory stays; `nox -s soak` runs many more."""

from __future__ import annotations

import keras

from .processes import assert_steps_hold


def test_steps() -> None:
    assert_steps_hold(f"keras:{keras.backend.backend()}", 1500)
