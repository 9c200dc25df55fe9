"""What is compiled is kept in a folder, which may be missing, not to be written to, or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CODE = """
import numpy as np
import classweight.adapters.numpy as cwn
from classweight import SoftmaxCrossEntropy
from classweight.compute import cpu
assert cpu.kernels() is not None
rng = np.random.default_rng(0)
spec, z, t = SoftmaxCrossEntropy(class_weight=rng.random(7)), rng.normal(size=(300, 7)), rng.random((300, 7))
digest = [x.tobytes().hex() for x in cwn.loss_and_grad(spec, z.astype("f"), t.astype("f"))]
"""


def expected() -> str:
    """Return the bits that every process has."""
    found: dict[str, Any] = {}
    exec(CODE, found)
    return str(found["digest"])


# What it would compile with.
NOT_AGAIN = """
from numba.core.ccallback import CFunc
del CFunc._compile_uncached
"""


def start(cache: Path, before: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-P", "-c", before + CODE + "print(digest)"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_right(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert not errors
    assert output.strip() == expected()


def test_two_processes_compile_at_once_and_a_broken_cache_is_made_again(tmp_path: Path) -> None:
    for process in [start(tmp_path) for _ in range(2)]:
        assert_right(process)
    kept = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    assert_right(start(tmp_path, NOT_AGAIN))
    for content in (b"", kept[0].read_bytes()[:40]):
        for path in kept:
            path.write_bytes(content)
        assert_right(start(tmp_path))
        assert_right(start(tmp_path, NOT_AGAIN))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of folders are POSIX's")
def test_a_folder_that_is_a_file_or_cannot_be_written_to_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir(mode=0o500)
    for name in ("file", "closed"):
        assert_right(start(tmp_path / name))
