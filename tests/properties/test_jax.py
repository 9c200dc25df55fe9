"""The laws on JAX."""

from __future__ import annotations

from functools import lru_cache

import pytest

from .laws import LAWS, Law, Library, holds

library = lru_cache(Library)


@pytest.mark.parametrize("backend", ["jax"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds(law: Law, backend: str) -> None:
    holds(law, library(backend), examples=4)
