"""Without Numba: NumPy's losses come from the closed form and PyTorch's from the composite, exact ones bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import classweight.adapters.numpy as cwn
from classweight.compute import cpu

from ..batches import KINDS, Batch, assert_same_bits, batch

HALVES_AND_FLOATS = ["float16", "bfloat16", "float32"]


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function after which there are no kernels."""
    assert cpu.kernels() is not None
    return lambda: monkeypatch.setattr(cpu, "kernels", lambda: None)


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which Numba cannot be imported."""
    (folder / "numba.py").write_text("raise ImportError('there is no Numba here')\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, env=environment(folder), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_suite_passes(backend: str, tmp_path: Path) -> None:
    run(tmp_path, "-m", "classweight", "conformance", "--backend", backend)


def test_numba_is_looked_for_by_the_first_loss_and_may_be_missing(tmp_path: Path) -> None:
    code = "import classweight.compute.cpu as cpu; print(cpu.kernels())"
    assert run(tmp_path, "-c", code) == "None\n"


def without_near_ties(b: Batch) -> Batch:
    """Return the batch with targets of which exact precision promises bits: of 0 and 1 in a binary loss."""
    return replace(b, t=(b.t > 0.5).astype(b.t.dtype), spec=replace(b.spec, label_smoothing=0)) if b.is_binary else b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOATS)
@pytest.mark.parametrize("classes", [2, 10, 33, 1000])
def test_exact_losses_have_the_bits_of_the_kernels(kind: str, dtype: str, classes: int, no_kernels: Any) -> None:
    b = without_near_ties(batch(kind, dtype, classes, "exact"))
    means = b.reduced()

    def all_of_it() -> list[Any]:
        return [
            *cwn.loss_and_grad(b.spec, b.z, b.t, b.s, upstream=b.upstream),
            *cwn.loss_and_grad(means.spec, b.z, b.t, b.s, upstream=means.upstream),
            cwn.loss(means.spec, b.z, b.t, b.s),
        ]

    expected = all_of_it()
    no_kernels()
    found = all_of_it()
    # A sum of nothing is 0 of either sign.
    assert_same_bits([x + 0 for x in found], [x + 0 for x in expected])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("classes", [2, 100])
def test_parts_are_those_of_the_kernels(kind: str, precision: str, classes: int, no_kernels: Any) -> None:
    b = batch(kind, "float32", classes, precision).reduced()
    expected = cwn.loss_parts(b.spec, b.z, b.t, b.s)
    no_kernels()
    found = cwn.loss_parts(b.spec, b.z, b.t, b.s)
    assert found[1] == expected[1]
    assert found[0] == pytest.approx(expected[0], rel=1e-13 if precision == "exact" else 1e-6)
