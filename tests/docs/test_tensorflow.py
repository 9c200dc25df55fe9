"""The pages of docs/ and the examples that need TensorFlow, Keras or JAX."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..examples import printed_by
from .pages import pages, run


@pytest.mark.parametrize("page", pages("tensorflow"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


def test_split_tensorflow() -> None:
    """One denominator makes the whole batch's update, and means of the parts do not: the example asserts it."""
    assert len(re.findall(r"^.+ [\d,]+ +[\d,]+$", printed_by("split_tensorflow"), re.MULTILINE)) == 5


def test_split_keras() -> None:
    """One denominator makes the whole batch's update, and means of the parts do not: the example asserts it."""
    assert len(re.findall(r"^.+ [\d,]+ +[\d,]+$", printed_by("split_keras"), re.MULTILINE)) == 3
