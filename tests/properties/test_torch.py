"""The laws on PyTorch."""

from __future__ import annotations

from functools import lru_cache

import pytest

from .laws import LAWS, Law, Library, holds

library = lru_cache(Library)


@pytest.mark.parametrize("backend", ["torch", "torch:composite", "torch:linear"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds(law: Law, backend: str) -> None:
    holds(law, library(backend), examples=8 if backend == "torch:linear" else 25)
