"""Forward and backward of every adapter against the framework's own weighted loss, side by side on this machine.

    python benchmarks --framework torch --framework keras:jax --shape 8192x1000 --shape bce-65536x80
    python benchmarks linear --rows 1024
    python benchmarks gpu --out FOLDER

Each framework runs in a process of its own, native, ours and exact taking turns there. What is compared is the same
number, as is seen before the clock starts. ``nox -s benchmark`` does it in every framework's environment; ``gpu`` runs
all that there is to run on a GPU, tests included, and writes one text; ``linear`` measures the loss of a linear layer.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gpu
from cases import DEFAULT, QUICK, Case
from frameworks import BACKENDS, CUDA, NAMED
from measure import work
from report import picture, table

# Below this, pages and pools would be measured, and not the loss.
MEMORY_BYTES = 16 * 2**20
LAST_LINES = 5


def main() -> int:
    """Measure, print the table, write the files; 1 if something failed, other than for want of memory."""
    options = _options()
    backends = _backends(options)
    cases = options.shape or [Case(name) for name in (QUICK if options.quick else DEFAULT)]
    request = {
        "device": options.device,
        "threads": options.threads,
        "seconds": 0.3 if options.quick else options.seconds,
        "pairs": 3 if options.quick else options.pairs,
        **({"until": time.time() + options.within} if options.within else {}),
    }
    report: dict[str, Any] = {
        "machine": {"cpu": _cpu(), "platform": platform.platform(), **request},
        "shapes": [case.name for case in cases],
        "backends": {name: {} for name in backends},
        "results": [{"backend": name, "case": case.name} for case in cases for name in backends],
        "failures": [],
    }
    for name, python in backends.items():
        for line in _worker(python, {**request, "backend": name, "task": "times", "cases": report["shapes"]}):
            told = [line[key] for key in ("case", "ms", "skipped", "failed") if key in line]
            print(name, *told, file=sys.stderr)
            _add(report, name, line)
    if not options.no_memory:
        _measure_memory(report, backends, cases, {**request, "growth": not options.quick})
    print(table(report))
    for file in filter(None, (options.json, options.picture)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.picture:
        picture(report, options.picture)
    return bool(report["failures"])


def _add(report: dict[str, Any], name: str, line: dict[str, Any], side: str = "") -> None:
    """Put what a worker said where it belongs."""
    case = line.get("case")
    if "failed" in line:
        where = " ".join(filter(None, (name, case, side and f"(memory, {side})")))
        report["failures"].append(f"{where}: {line['failed']}")
    entry = report["backends"][name]
    if case:
        entry = next(result for result in report["results"] if (result["backend"], result["case"]) == (name, case))
    if side:
        line = {key: {**entry.get(key, {}), side: line[key]} for key in ("memory", "growth") if key in line}
    entry.update(line)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--backend", action="append", metavar="NAME[@PYTHON]", help=f"what there is: {', '.join(BACKENDS)}")
    add(
        "--framework",
        action="append",
        metavar="NAME",
        help=f"these alone; `keras` is all of its backends; the only way to {', '.join(NAMED)}",
    )
    add("--shape", action="append", type=_case, help=f"{', '.join(DEFAULT)}, or any other")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=int, default=_processors())
    add("--seconds", type=float, default=1.5, help="to take pairs for, per framework and shape; five at least")
    add("--pairs", type=int, default=15, help="at most")
    add("--within", type=float, metavar="SECONDS", help="start no shape later than this")
    add("--quick", action="store_true", help=f"{', '.join(QUICK)}, three pairs, no growth")
    add("--no-memory", action="store_true")
    add("--json", type=Path)
    add("--picture", type=Path, help="PNG")
    return parser.parse_args()


def _case(name: str) -> Case:
    try:
        return Case(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _backends(options: argparse.Namespace) -> dict[str, str]:
    """Return the interpreter of each backend that is to be measured."""
    allowed = CUDA if options.device == "cuda" else tuple(name for name in BACKENDS if name != "cupy")
    given = options.backend or [name for name in allowed if _importable(name)]
    found = {name: python or sys.executable for name, _, python in (each.partition("@") for each in given)}
    for unknown in found.keys() - BACKENDS.keys():
        sys.exit(f"`--backend` must be among {', '.join(BACKENDS)}; got {unknown!r}")
    found = {name: python for name, python in found.items() if name in allowed}
    chosen = set(options.framework or found.keys() - set(NAMED))
    if "keras" in chosen:
        chosen = chosen - {"keras"} | {name for name in found if name.startswith("keras:")}
    for unknown in chosen - found.keys():
        sys.exit(f"`--framework` must be among {', '.join(found)}, which can be measured here; got {unknown!r}")
    return {name: python for name, python in found.items() if name in chosen}


def _importable(name: str) -> bool:
    framework, *rest = name.split(":")
    return all(map(importlib.util.find_spec, (framework, *rest[: framework == "keras"])))


def _worker(python: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a worker measures; and, if it dies, why."""
    threads = str(request["threads"])
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}
    command = [python, str(Path(__file__).parent), "--worker", json.dumps(request)]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=variables, text=True)
        except OSError as cause:
            yield {"failed": f"{python} cannot be started: {cause}"}
            return
        with process:
            assert process.stdout is not None
            yield from map(json.loads, process.stdout)
        if process.returncode:
            said.seek(0)
            last = said.read().strip().splitlines()[-LAST_LINES:]
            yield {"failed": "\n    ".join([f"the worker ended with status {process.returncode}", *last])}


def _measure_memory(
    report: dict[str, Any], backends: dict[str, str], cases: list[Case], request: dict[str, Any]
) -> None:
    """Read the peaks, each side and shape in a process of its own, and several at once: no clock runs."""
    large = [[case.name] for case in cases if case.bytes >= MEMORY_BYTES] or [[]]
    tasks = [
        {**request, "backend": name, "task": "memory", "side": side, "cases": names}
        | {"growth": request["growth"] and names is large[0] and "compile" not in name}
        for name in backends
        if name not in ("cupy", "torch:rivals") and "failed" not in report["backends"][name]
        for side in ("native", "ours")
        for names in large
    ]
    with ThreadPoolExecutor(request["threads"]) as pool:
        replies = pool.map(lambda task: list(_worker(backends[task["backend"]], task)), tasks)
        for task, lines in zip(tasks, replies, strict=True):
            for line in lines:
                _add(report, task["backend"], line, task["side"])


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (named or [platform.processor() or platform.machine()])[0]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
    elif sys.argv[1:2] == ["gpu"]:
        sys.exit(gpu.main(sys.argv[2:]))
    elif sys.argv[1:2] == ["linear"]:
        sys.exit(importlib.import_module("linear").main(sys.argv[2:]))
    else:
        sys.exit(main())
