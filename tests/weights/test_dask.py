"""A data set in partitions is counted by Dask, which adds the parts up in a tree."""

from __future__ import annotations

from typing import Any

import dask
import dask.array
import dask.bag
import numpy as np
import pytest

from classweight import ClassCounts

LABELS = np.random.default_rng(0).choice(5, 10_001, p=[0.6, 0.3, 0.08, 0.015, 0.005])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("names", [False, True])
def test_a_tree_of_partitions_counts_what_one_pass_does(scheduler: str, names: bool) -> None:
    labels = np.array(["ant", "bee", "cat", "dog", "eel"])[LABELS] if names else LABELS
    partitions = dask.array.from_array(labels, chunks=100).to_delayed().ravel().tolist()
    counted = dask.bag.from_delayed(partitions).reduction(lambda part: ClassCounts().update(part), sum, split_every=4)
    with dask.config.set(scheduler=scheduler):
        assert counted.compute() == ClassCounts().update(labels)


def test_pixel_maps_and_weights_in_blocks() -> None:
    """Any array of Dask, with what weighs it in the same blocks."""
    maps, s = LABELS[:9000].reshape(10, 30, 30), np.arange(10.0)
    blocks = dask.array.from_array(maps, chunks=(4, 30, 30)).to_delayed().ravel()
    weights = dask.array.from_array(s, chunks=4).to_delayed()
    part = dask.delayed(lambda block, weight: ClassCounts(5).update(block, weight))
    tree: list[Any] = [part(block, weight) for block, weight in zip(blocks, weights, strict=True)]
    assert dask.delayed(sum)(tree).compute(scheduler="synchronous") == ClassCounts(5).update(maps, s)
