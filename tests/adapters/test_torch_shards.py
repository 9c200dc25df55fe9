"""PyTorch: a rank that has some of the classes gets the loss, and its part of the gradients, of all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch is built without it")
SCRIPT = Path(__file__).with_name("shards_torch.py")
CHECKS = [line[4:].split("(")[0] for line in SCRIPT.read_text().splitlines() if line.startswith("def check_")]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return what each check said on each rank of three processes."""
    folder = tmp_path_factory.mktemp("shards")
    subprocess.run([sys.executable, SCRIPT, folder], check=True, timeout=1000)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.parametrize("check", CHECKS)
def test_shards(check: str, said: list[dict[str, str]]) -> None:
    """Each function of the script, on every rank."""
    for rank, checks in enumerate(said):
        assert checks.get(check, "not reached: a check before it failed") == "", f"rank {rank}"
