"""Keras, on the backend that KERAS_BACKEND names, under random calls, right and wrong."""

from __future__ import annotations

import os
import warnings

import pytest

from .calls import Adapter, blocks

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
# Keras and torch ask NumPy for arrays in the way of NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    adapter = Adapter(f"keras:{BACKEND}")


# JAX compiles each call anew.
@blocks({"torch": 5_000, "tensorflow": 1_000, "jax": 50}[BACKEND])
def test_a_call_gives_the_right_number_or_one_clear_error(seeds: range) -> None:
    for seed in seeds:
        adapter.check(seed)
