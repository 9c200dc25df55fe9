"""The laws on TensorFlow: by its own operations, eagerly and in a graph, and under XLA."""

from __future__ import annotations

from functools import lru_cache

import pytest

from classweight.adapters.tensorflow import operation

from .laws import BITS, LAWS, Law, Library, holds

library = lru_cache(Library)


@pytest.mark.parametrize("backend", ["tensorflow", "tensorflow:graph", "tensorflow:xla"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds(law: Law, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if law is BITS:  # XLA has another exponential than TensorFlow: no call may change over to it
        monkeypatch.setattr(operation, "PATIENCE", 10**9)
    holds(law, library(backend), examples={"tensorflow": 8, "tensorflow:graph": 3}.get(backend, 2))


def test_a_row_of_what_is_compiled_has_its_bits_whatever_is_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PATIENCE": 1, "SEVERAL": 10**9, "MOST": 10**9}.items():
        monkeypatch.setattr(operation, name, value)
    monkeypatch.setattr(operation, "_kernel", lru_cache(operation._kernel.__wrapped__))
    holds(BITS, library("tensorflow"), examples=3)
