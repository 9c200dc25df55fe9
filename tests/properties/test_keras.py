"""The laws on Keras on its backend."""

from __future__ import annotations

import os
from functools import lru_cache

import pytest

from .laws import BITS, LAWS, Law, Library, holds

library = lru_cache(Library)


@pytest.mark.parametrize("backend", [f"keras:{os.environ.get('KERAS_BACKEND', 'tensorflow')}"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds(law: Law, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "keras:tensorflow" and law is BITS:  # XLA has another exponential: no call may change over to it
        monkeypatch.setattr("classweight.adapters.tensorflow.operation.PATIENCE", 10**9)
    holds(law, library(backend), examples=6)
