"""The pages of docs/ that need TensorFlow, Keras or JAX."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import pages, run


@pytest.mark.parametrize("page", pages("tensorflow"), ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)
