"""The examples and the page on transformers, accelerate, Lightning and Ray run, and what they print is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..examples import assert_counts, printed_by
from .pages import pages, run


@pytest.mark.parametrize(("example", "rows"), [("transformers", 8), ("accelerate", 4), ("lightning", 4)])
def test_a_split_step_is_the_whole_batchs(example: str, rows: int) -> None:
    """Each example asserts it, and that a mean of means is not."""
    found = re.findall(r"^(?:class|token|\d|\w+,).* +[\d,]+ +[\d,]+$", printed_by(f"trainer_{example}"), re.MULTILINE)
    assert len(found) == rows


def test_counts() -> None:
    assert_counts(printed_by("counts_ray"))


@pytest.mark.parametrize("page", pages("trainers"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)
