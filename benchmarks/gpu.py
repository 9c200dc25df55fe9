"""All that a GPU has to show, in one text: its tests, the conformance of the backends on it, and the benchmark.

    python benchmarks gpu --out FOLDER

It ends within nine minutes, whatever is left undone then. It needs what the tests need; CuPy and liger-kernel are used
where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import ON_A_GPU

__all__ = ["Stage", "main", "plan"]

ROOT = Path(__file__).parents[1]
# The clocks run alone, after what may run side by side.
SECONDS = {"tests": 270, "conformance": 270, "benchmark": 240}
# A shape that is begun is measured to its end.
LAST_SHAPE_SECONDS = 45
LAST_LINES = 120


@dataclass(frozen=True, slots=True)
class Stage:
    """A command, and the seconds that it may take."""

    name: str
    command: list[str]
    seconds: float


def plan(device: str, quick: bool, folder: Path) -> list[list[Stage]]:
    """Return what runs side by side, one group after the other."""
    on_cpu = device == "cpu"
    backends = ["torch"] if on_cpu else ["torch:cuda", "torch:cuda:compiled"]
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    if not on_cpu and importlib.util.find_spec("cupy"):
        backends.append("cupy")
    files = ["tests/adapters/test_torch_cuda.py", "tests/adapters/test_torch.py"]
    suite = ["-m", "classweight", "conformance", "--elements", "0" if quick else "20000"]
    suite += [option for name in backends for option in ("--backend", name)]
    within = SECONDS["benchmark"] - LAST_SHAPE_SECONDS
    clock = ["benchmarks", "--device", device, "--framework", "torch:rivals", "--json", str(folder / "benchmark.json")]
    clock += ["--seconds", "0.3", "--no-memory", "--within", str(within)]
    shapes = ON_A_GPU
    if quick:
        suite += ["--clause", "mask"]
        shapes, clock = ("bf16-64x10",), [*clock, "--threads", "1", "--pairs", "2"]
        tests += ["--collect-only"]
    elif importlib.util.find_spec("cupy"):
        files += ["tests/adapters/test_cupy.py", "tests/weights/test_torch.py"]
    clock += [option for shape in shapes for option in ("--shape", shape)]
    commands = {"tests": [*tests, *files], "conformance": suite, "benchmark": clock}
    stages = {name: Stage(name, [sys.executable, *command], SECONDS[name]) for name, command in commands.items()}
    return [[stages["tests"], stages["conformance"]], [stages["benchmark"]]]


def main(arguments: Sequence[str]) -> int:
    """Run the plan and write the text; 1 if a stage failed or its time was up."""
    parser = argparse.ArgumentParser("benchmarks gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command itself")
    parser.add_argument("--quick", action="store_true", help="a little of everything")
    options = parser.parse_args(arguments)
    card = _card() if options.device == "cuda" else "no GPU"
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    text, failed = f"{card}\n{platform.platform()}, python {platform.python_version()}\n", False
    for group in plan(options.device, options.quick, folder):
        with ThreadPoolExecutor(len(group)) as pool:
            for stage, (status, said) in zip(group, pool.map(_run, group), strict=True):
                (folder / f"{stage.name}.txt").write_text(said)
                last = "\n".join(said.strip().splitlines()[-LAST_LINES:])
                text += f"\n== {stage.name}: {status}\n{last}\n"
                failed = failed or not status.startswith("passed")
    (folder / "gpu.txt").write_text(text)
    print(text)
    return failed


def _card() -> str:
    """Return the names and versions of card, driver and PyTorch; leave with one sentence where there is no GPU."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    sys.exit("`gpu` needs a GPU that PyTorch can use, and there is none here.")


def _run(stage: Stage) -> tuple[str, str]:
    """Return how a stage ended, and what it said until then."""
    start = time.monotonic()
    how: dict[str, Any] = {"cwd": ROOT, "env": {**os.environ, "PYTHONSAFEPATH": "1"}, "text": True, "errors": "replace"}
    # A session of its own, so that a stage's workers end with it.
    with subprocess.Popen(
        stage.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **how
    ) as process:
        try:
            said, _ = process.communicate(timeout=stage.seconds)
            status = f"failed with status {process.returncode}" if process.returncode else "passed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            status = "its time was up"
    return f"{status}, {time.monotonic() - start:.0f} s", said
