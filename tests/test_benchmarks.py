"""The benchmark measures what it says, on shapes too small to mean anything; what the clock says is not looked at."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ("64x10", "2x3x4x5", "bce-6x4")
# The smallest whose memory is read, and one that no machine has room for.
LARGE, TOO_LARGE = "1024x4096", "1000000x1000000"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS), "--threads", "1", "--seconds", "0", "--pairs", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("benchmark")
    shapes = [option for shape in (*SMALL, LARGE, TOO_LARGE) for option in ("--shape", shape)]
    files = ("--json", str(folder / "report.json"), "--picture", str(folder / "report.png"))
    done = run("--framework", "numpy", "--framework", "torch", *shapes, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_every_shape_is_timed_on_every_framework(measured: tuple[Path, str]) -> None:
    """Each result has the times of three sides, and two ratios between their quartiles."""
    report = report_of(measured[0])
    timed = [result for result in report["results"] if "ms" in result]
    assert {(r["backend"], r["case"]) for r in timed} == {(b, c) for b in ("numpy", "torch") for c in (*SMALL, LARGE)}
    for result in timed:
        assert result["ms"].keys() == {"native", "ours", "exact"}
        assert all(0 < ms < math.inf for ms in result["ms"].values())
        assert result["ratio"].keys() == {"ours", "exact"}
        assert all(0 < low <= median <= high < math.inf for median, low, high in result["ratio"].values())
    assert report["machine"]["threads"] == 1
    assert report["backends"]["torch"]["versions"].keys() >= {"python", "numpy", "torch"}


def test_memory_holds_the_gradient(measured: tuple[Path, str]) -> None:
    """A training step's peak is at least its gradient, the size of the logits, on both sides; growth is read too."""
    report = report_of(measured[0])
    peaks = {r["backend"]: r["memory"] for r in report["results"] if r["case"] == LARGE}
    for sides in peaks.values():
        assert sides.keys() == {"native", "ours"}
        assert all(side["training"] > 0.9 for side in sides.values())
        assert all(0 <= side["forward"] < side["training"] + 0.1 for side in sides.values())
    assert all(backend["growth"].keys() == {"native", "ours"} for backend in report["backends"].values())


def test_what_does_not_fit_is_skipped_with_its_reason(measured: tuple[Path, str]) -> None:
    """A shape larger than the memory is in the table, with what it would take."""
    assert measured[1].count("skipped: it may take 44703.5 GiB") == 2


def test_the_picture_is_a_png(measured: tuple[Path, str]) -> None:
    """The file is written, and is of the type that its name says."""
    assert (measured[0] / "report.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_framework_that_cannot_be_started_is_a_failure(tmp_path: Path) -> None:
    """It is named with the reason, and the exit status is 1."""
    done = run("--backend", f"chainer@{tmp_path / 'python'}", "--shape", "4x3")
    assert done.returncode == 1
    assert f"failed: chainer: {tmp_path / 'python'} cannot be started" in done.stdout


def test_a_shape_for_which_there_is_no_time_is_skipped() -> None:
    """Those that follow are skipped as well, and the table is printed."""
    done = run("--framework", "numpy", "--no-memory", "--within", "0.001", "--shape", "6x4", "--shape", "8x4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("skipped: the time is up") == 2


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCHMARKS), "gpu", *arguments], capture_output=True, text=True)


def test_what_a_gpu_has_to_show_is_one_text(tmp_path: Path) -> None:
    """The command's stages, tried on the CPU: a little of everything."""
    done = gpu("--out", str(tmp_path), "--device", "cpu", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "gpu.txt").read_text()
    assert text.count(": passed, ") == 5
    for found, times in (("test_nothing_synchronises[index]", 1), ("worst ULP", 2), ("compiled against ours", 1)):
        assert text.count(found) == times


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so(tmp_path: Path) -> None:
    done = gpu("--out", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "`gpu` needs a GPU that PyTorch can use, and there is none here.\n"
    assert not done.stdout


def test_nine_minutes_are_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stages that follow one another end in time; each group takes as long as its longest."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    groups = importlib.import_module("gpu").plan("cuda", False, tmp_path)
    assert sum(max(stage.seconds for stage in group) for group in groups) < 9 * 60
    names = ["tests", "conformance", "compiled", "benchmark", "linear"]
    assert [stage.name for group in groups for stage in group] == names


def test_another_number_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """A side whose loss or gradient is off by a thousandth is refused before the clock starts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    cases, frameworks, measure = map(importlib.import_module, ("cases", "frameworks", "measure"))
    framework, case = frameworks.make_framework("numpy", "cpu"), cases.Case("8x5")
    arguments, weight = measure._arguments(framework, case)
    loss, gradient = framework.losses(case, weight)["native"](*arguments)

    def check(loss_of_ours: Any, gradient_of_ours: Any) -> None:
        sides = {"native": (loss, gradient), "ours": (loss_of_ours, gradient_of_ours)}
        measure._check_same(framework, {side: partial(tuple, results) for side, results in sides.items()})

    check(loss, gradient)
    with pytest.raises(ValueError, match="not the same number"):
        check(loss * 1.001, gradient)
    with pytest.raises(ValueError, match="not the same number"):
        check(loss, gradient * 1.001)
