"""The examples run, and what they print is true."""

from __future__ import annotations

import re

import pytest

from .examples import assert_counts, printed_by


def test_imbalanced_torch() -> None:
    """Weights find most of the rare class; ours is PyTorch's loss, and Keras's where its convention is asked for."""
    printed_lines = printed_by("imbalanced_torch", "-W", "error")
    lines = re.findall(r"^(.*?) {2,}([\d.]+)(?: +([\d.]+))?$", printed_lines, re.MULTILINE)
    printed = {name: tuple(float(number) for number in numbers if number) for name, *numbers in lines}
    plain, weighted = printed["fastest tenth"]
    assert plain < 0.5 < weighted
    torch, keras = printed["F.cross_entropy"], printed["F.cross_entropy, sum / 64"]
    assert torch != pytest.approx(keras, rel=0.05)
    assert printed["cwt.cross_entropy"] == pytest.approx(torch, rel=1e-5)
    assert printed["cwt.loss, Keras's convention"] == pytest.approx(keras, rel=1e-5)


def test_split_torch() -> None:
    """Whatever a step is split over, one denominator gives the whole batch's update, and means of the parts do not."""
    found = printed_by("split_torch", "-W", "error")
    printed = re.findall(r"^(.*?) {2,}(\d+) +(\d+) +([\d,]+) +([\d,]+)$", found, re.MULTILINE)
    assert len(printed) == 6


def test_tensor_parallel_torch() -> None:
    """Ranks that have some tokens of a vocabulary have the loss and the gradients of the whole."""
    found = printed_by("tensor_parallel_torch", "-W", "error")
    printed = re.findall(r"^(.*?) {2,}([\d.e+-]+) +([\d.e+-]+) +([\d.e+-]+)$", found, re.MULTILINE)
    assert [name for name, *_ in printed] == ["linear_loss(group=)", "ColwiseParallel"]
    assert all(float(difference) < 1e-5 for _, *differences in printed for difference in differences)


def test_counts_dask() -> None:
    assert_counts(printed_by("counts_dask", "-W", "error"))
