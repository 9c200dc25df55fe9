"""The example on JAX runs, and what it prints is true."""

from __future__ import annotations

import re

import pytest

from ..examples import printed_by


def test_imbalanced_jax() -> None:
    """Weights find most of the rare class; each spec is what its users write, and the two are no one number."""
    found = printed_by("imbalanced_jax", "-W", "error")
    lines = re.findall(r"^(.*?) {2,}([\d.]+)(?: +([\d.]+))?$", found, re.MULTILINE)
    printed = {name: tuple(float(number) for number in numbers if number) for name, *numbers in lines}
    plain, weighted = printed["fastest tenth"]
    assert plain < 0.5 < weighted
    rows, weights = printed["jnp.mean(losses * weights)"], printed["jnp.average(losses, weights=weights)"]
    assert rows != pytest.approx(weights, rel=0.05)
    assert printed["the spec of that"] == pytest.approx(rows, rel=1e-5)
    assert printed["the spec of this"] == pytest.approx(weights, rel=1e-5)
