"""The pages of docs/ and the examples that need Chainer."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer  # noqa: F401

from .pages import ROOT, pages, run


@pytest.mark.parametrize("page", pages("chainer"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


def test_split_chainer() -> None:
    """One denominator makes the whole batch's update, and means of the parts do not: the example asserts it."""
    command = [sys.executable, str(ROOT / "examples" / "split_chainer.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(re.findall(r"^.+ [\d,]+ +[\d,]+$", run.stdout, re.MULTILINE)) == 2
