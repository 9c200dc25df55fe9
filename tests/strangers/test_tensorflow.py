"""TensorFlow under random calls, right and wrong."""

from __future__ import annotations

import warnings

from .calls import Adapter, blocks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    adapter = Adapter("tensorflow")


@blocks(2_000)
def test_a_call_gives_the_right_number_or_one_clear_error(seeds: range) -> None:
    for seed in seeds:
        adapter.check(seed)
