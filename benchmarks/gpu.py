"""All that a GPU has to show, in one text: its tests, the conformance of the backends on it, and the benchmarks.

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
SIDE_BY_SIDE_SECONDS, BENCHMARK_SECONDS, LINEAR_SECONDS = 250, 190, 90
# A shape that is begun is measured to its end.
LAST_SHAPE_SECONDS = 45
# A graph is compiled for each case.
CLAUSES_COMPILED = ("reduction", "class_weight", "label_smoothing", "sigmoid")
LAST_LINES = 120


@dataclass(frozen=True, slots=True)
class Stage:
    """A command, and the seconds that it may take."""

    name: str
    command: list[str]
    seconds: float


def plan(device: str, quick: bool, folder: Path) -> list[list[Stage]]:
    """Return what runs side by side, one group after the other."""
    has_cupy = device == "cuda" and importlib.util.find_spec("cupy") is not None
    backends = ["torch:cuda" if device == "cuda" else "torch", *["cupy"] * has_cupy]
    files = [f"tests/adapters/test_{name}.py" for name in ("torch_cuda", "torch", *["cupy"] * has_cupy)]
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *files, *["--collect-only"] * quick]
    suite = ["-m", "classweight", "conformance", "--elements", "0" if quick else "20000"]
    suite += ["--clause", "mask"] * quick
    compiled = [*suite, *_each("--clause", () if quick else CLAUSES_COMPILED)]
    compiled += ["--backend", "torch:cuda:compiled" if device == "cuda" else "torch:composite"]
    clock = ["benchmarks", "--device", device, "--framework", "torch:rivals", "--json", str(folder / "benchmark.json")]
    clock += ["--seconds", "0.3", "--no-memory", "--within", str(BENCHMARK_SECONDS - LAST_SHAPE_SECONDS)]
    clock += ["--pairs", "2", *_each("--shape", ("bf16-64x10",))] if quick else _each("--shape", ON_A_GPU)
    linear = ["benchmarks", "linear", "--device", device]
    if quick:
        linear += ["--rows", "8", "--features", "4", "--classes", "5", "--type", "float32", "--peak", "ours"]
    else:
        shapes = {"--type": ("bfloat16", "float32"), "--classes": ("128256", "32000")}
        linear += ["--rows", "8192", *[word for option, values in shapes.items() for word in _each(option, values)]]
    together = {"tests": tests, "conformance": [*suite, *_each("--backend", backends)], "compiled": compiled}
    return [
        [Stage(name, [sys.executable, *command], SIDE_BY_SIDE_SECONDS) for name, command in together.items()],
        [Stage("benchmark", [sys.executable, *clock], BENCHMARK_SECONDS)],
        [Stage("linear", [sys.executable, *linear], LINEAR_SECONDS)],
    ]


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


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
