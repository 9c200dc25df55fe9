"""The examples run, and what they print is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_imbalanced_torch() -> None:
    """Weights find most of the rare class; ours is PyTorch's loss, and Keras's where its convention is asked for."""
    command = [sys.executable, "-W", "error", EXAMPLES / "imbalanced_torch.py"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = re.findall(r"^(.*?) {2,}([\d.]+)(?: +([\d.]+))?$", run.stdout, re.MULTILINE)
    printed = {name: tuple(float(number) for number in numbers if number) for name, *numbers in lines}
    plain, weighted = printed["fastest tenth"]
    assert plain < 0.5 < weighted
    torch, keras = printed["F.cross_entropy"], printed["F.cross_entropy, sum / 64"]
    assert torch != pytest.approx(keras, rel=0.05)
    assert printed["cwt.cross_entropy"] == pytest.approx(torch, rel=1e-5)
    assert printed["cwt.loss, Keras's convention"] == pytest.approx(keras, rel=1e-5)


def test_split_torch() -> None:
    """Whatever a step is split over, one denominator gives the whole batch's update, and means of the parts do not."""
    command = [sys.executable, "-W", "error", EXAMPLES / "split_torch.py"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = re.findall(r"^(.*?) {2,}(\d+) +(\d+) +([\d,]+) +([\d,]+)$", run.stdout, re.MULTILINE)
    assert len(printed) == 6


def test_tensor_parallel_torch() -> None:
    """Ranks that have some tokens of a vocabulary have the loss and the gradients of the whole."""
    command = [sys.executable, "-W", "error", EXAMPLES / "tensor_parallel_torch.py"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = re.findall(r"^(.*?) {2,}([\d.e+-]+) +([\d.e+-]+) +([\d.e+-]+)$", run.stdout, re.MULTILINE)
    assert [name for name, *_ in printed] == ["linear_loss(group=)", "ColwiseParallel"]
    assert all(float(difference) < 1e-5 for _, *differences in printed for difference in differences)


def test_counts_dask() -> None:
    """Every label is counted once, a rarer class weighs as much more, and in all each class weighs the same."""
    command = [sys.executable, "-W", "error", EXAMPLES / "counts_dask.py"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in run.stdout.splitlines()[1:]]
    counts = [int(row[2]) for row in rows]
    assert sum(counts) == 10_000_000
    assert counts == sorted(counts, reverse=True)
    assert [float(row[4]) for row in rows] == pytest.approx([counts[0] / count for count in counts], rel=5e-6)
    assert {row[5] for row in rows} == {"0.250000"}
