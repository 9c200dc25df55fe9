"""Steps in a process of their own, whose memory is theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def assert_steps_hold(adapter: str, steps: int) -> None:
    """Assert that threads and workers have the bits of one, and that memory stays."""
    script = Path(__file__).with_name("steps.py")
    run = subprocess.run([sys.executable, script, adapter, str(steps)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
