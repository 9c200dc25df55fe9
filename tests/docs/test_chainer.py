"""The pages of docs/ that need Chainer."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer  # noqa: F401

from .pages import pages, run


@pytest.mark.parametrize("page", pages("chainer"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)
