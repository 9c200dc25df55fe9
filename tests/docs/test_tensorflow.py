"""The pages of docs/ and the examples that need TensorFlow, Keras or JAX."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, pages, run


@pytest.mark.parametrize("page", pages("tensorflow"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


def test_split_tensorflow() -> None:
    """One denominator makes the whole batch's update, and means of the parts do not: the example asserts it."""
    command = [sys.executable, str(ROOT / "examples" / "split_tensorflow.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(re.findall(r"^.+ [\d,]+ +[\d,]+$", run.stdout, re.MULTILINE)) == 5


def test_split_keras() -> None:
    """One denominator makes the whole batch's update, and means of the parts do not: the example asserts it."""
    command = [sys.executable, str(ROOT / "examples" / "split_keras.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(re.findall(r"^.+ [\d,]+ +[\d,]+$", run.stdout, re.MULTILINE)) == 3
