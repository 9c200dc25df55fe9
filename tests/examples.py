"""What tests of the examples share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed_by(example: str, *options: str) -> str:
    """Return what an example prints that Python was given options for."""
    command = [sys.executable, *options, EXAMPLES / f"{example}.py"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def assert_counts(printed: str) -> None:
    """Every label is counted once, a rarer class weighs as much more, and in all each class weighs the same."""
    rows = [line.split() for line in printed.splitlines()[1:]]
    counts = [int(row[2]) for row in rows]
    assert sum(counts) == 10_000_000
    assert counts == sorted(counts, reverse=True)
    assert [float(row[4]) for row in rows] == pytest.approx([counts[0] / count for count in counts], rel=5e-6)
    assert {row[5] for row in rows} == {"0.250000"}
