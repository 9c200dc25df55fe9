"""The examples and the page on transformers, accelerate, Lightning and Spark run, and what they print is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, pages, run


def printed_by(example: str) -> str:
    command = [sys.executable, ROOT / "examples" / f"{example}.py"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize(("example", "rows"), [("transformers", 8), ("accelerate", 4), ("lightning", 4)])
def test_a_split_step_is_the_whole_batchs(example: str, rows: int) -> None:
    """Each example asserts it, and that a mean of means is not."""
    found = re.findall(r"^(?:class|token|\d|\w+,).* +[\d,]+ +[\d,]+$", printed_by(f"trainer_{example}"), re.MULTILINE)
    assert len(found) == rows


def test_counts_spark() -> None:
    """Every label is counted once, and in all each class weighs the same."""
    rows = [line.split() for line in printed_by("counts_spark").splitlines()[1:]]
    assert sum(int(row[2]) for row in rows) == 10_000_000
    assert {row[5] for row in rows} == {"0.250000"}


@pytest.mark.parametrize("page", pages("trainers"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)
