"""PyTorch under random calls, right and wrong."""

from __future__ import annotations

from .calls import Adapter, blocks

adapter = Adapter("torch")


@blocks(10_000)
def test_a_call_gives_the_right_number_or_one_clear_error(seeds: range) -> None:
    for seed in seeds:
        adapter.check(seed)
