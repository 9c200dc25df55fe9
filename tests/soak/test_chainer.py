"""Some steps of Chainer: threads and workers have the bits of one, and memory stays; `nox -s soak` runs many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_steps() -> None:
    script = Path(__file__).with_name("steps.py")
    run = subprocess.run([sys.executable, script, "chainer", "4000"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
