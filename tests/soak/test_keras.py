"""Some steps of Keras on a backend: threads have the bits of one, and memory stays; `nox -s soak` runs many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras


def test_steps() -> None:
    script, name = Path(__file__).with_name("steps.py"), f"keras:{keras.backend.backend()}"
    run = subprocess.run([sys.executable, script, name, "1500"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
