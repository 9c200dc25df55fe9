"""The pages of docs/ and the examples that need Chainer."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer  # noqa: F401

from ..examples import printed_by
from .pages import pages, run


@pytest.mark.parametrize("page", pages("chainer"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


def test_split_chainer() -> None:
    """One denominator makes the whole batch's update, and means of the parts do not: the example asserts it."""
    assert len(re.findall(r"^.+ [\d,]+ +[\d,]+$", printed_by("split_chainer"), re.MULTILINE)) == 2
