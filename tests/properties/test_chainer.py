"""The laws on Chainer."""

from __future__ import annotations

import warnings
from functools import lru_cache

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer  # noqa: F401

from .laws import LAWS, Law, Library, holds

library = lru_cache(Library)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # Chainer's own, in its backward
@pytest.mark.parametrize("backend", ["chainer", "chainer:composite"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds(law: Law, backend: str) -> None:
    holds(law, library(backend), examples=25)
