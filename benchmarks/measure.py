"""What a worker does, in the interpreter of one framework: times or memory, a JSON line for each result.

Memory is how far the resident peak of the process rises above what the inputs and a first call left behind.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, batch
from frameworks import Framework, Loss, make_framework

__all__ = ["peak_bytes", "reset_peak", "resident_bytes", "tidy", "work"]

Step = Callable[[], Any]

# What one reading of the clock covers at least.
SAMPLE_SECONDS = 0.02
LEAST_PAIRS = 5
# In float32, relative to the loss and to the largest gradient: more is another number, and no comparison.
SAME, SAME_IF_HALF = 1e-4, 1 / 32
# Inputs, gradients and temporaries of the most wasteful side, in units of the logits.
COPIES, COPIES_IF_BINARY = 12, 36
STEPS, WARM_STEPS = 1000, 100
PACKAGES = ("torch", "tensorflow-cpu", "keras", "jax", "optax", "chainer", "cupy-cuda12x", "numpy", "numba", "triton")


def work(request: dict[str, Any]) -> None:
    """Do what the driver asks for, and write each result to the stdout that it reads."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a framework's print must not break the lines
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])

    def reply(result: dict[str, Any]) -> None:
        replies.write(json.dumps(result) + "\n")
        replies.flush()

    framework = make_framework(request["backend"], request["device"])
    reply({"versions": _versions()})
    measure = {"times": _times, "memory": _peaks}[request["task"]]
    for name in request["cases"]:
        case = Case(name)
        if time.time() > request.get("until", math.inf):
            reply({"case": name, "skipped": "the time is up"})
            continue
        try:
            result = _too_large(framework, case) or measure(framework, case, request)
        except Exception as error:  # costs its case, not the others
            result = {"failed": f"{type(error).__name__}: {error}"}
        reply({"case": name, **result})
    if request.get("growth"):
        reply({"growth": _growth(framework, request["side"])})


def _too_large(framework: Framework, case: Case) -> dict[str, Any]:
    needed = (COPIES_IF_BINARY if case.binary else COPIES) * case.bytes
    available = min(_available_bytes(), framework.device_bytes())
    if needed <= available:
        return {}
    return {"skipped": f"it may take {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available"}


def _arguments(framework: Framework, case: Case) -> tuple[tuple[Any, Any], Any]:
    """Return the logits and targets of a step, and the class weights, which are NumPy's."""
    logits, targets, weight = batch(case, channels_last=framework.channels_last)
    return (framework.to_logits(logits, case.half), framework.to_targets(targets, case.half)), weight


def _times(framework: Framework, case: Case, request: dict[str, Any]) -> dict[str, Any]:
    """Return the times of each side, once it has been seen that they compute the same number."""
    (logits, targets), weight = _arguments(framework, case)
    steps: dict[str, Step] = {
        side: partial(framework.training(loss), framework.apart(side, logits), targets)
        for side, loss in framework.losses(case, weight).items()
    }
    _check_same(framework, steps, SAME_IF_HALF if case.half else SAME)
    result = _paired(framework, steps, request["seconds"], request["pairs"])
    if copy := framework.device_copy():
        step, size = copy
        framework.seconds(step, 10)
        # The milliseconds to read the logits twice and to write the gradient, at the speed of a copy.
        least = 3000 * case.bytes / (size / framework.seconds(step, 100))
        result["bandwidth"] = {side: least / ms for side, ms in result["ms"].items()}
        peaks = {side: framework.device_peak(step) for side, step in steps.items()}
        result["peaks"] = {side: peak / case.bytes for side, peak in peaks.items() if peak is not None}
    return result


def _check_same(framework: Framework, steps: dict[str, Step], same: float = SAME) -> None:
    loss, gradient = map(framework.to_plain, steps["native"]())
    for side in steps:
        value, found = map(framework.to_plain, steps[side]())
        if not (abs(value - loss) <= same * abs(loss) and abs(found - gradient).max() <= same * abs(gradient).max()):
            raise ValueError(f"no comparison, for it is not the same number: native {loss}, {side} {value}")


def _paired(framework: Framework, steps: dict[str, Step], seconds: float, most: int) -> dict[str, Any]:
    """Return median times, and of native / ours, pairs that ran in turn, the median and the quartiles."""
    gc.collect()
    for step in steps.values():
        framework.seconds(step, framework.warm)
    repeats = {side: math.ceil(SAMPLE_SECONDS / framework.seconds(step, 1)) for side, step in steps.items()}
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < min(most, LEAST_PAIRS) or (len(rounds) < most and time.perf_counter() < end):
        rounds.append([framework.seconds(step, repeats[side]) for side, step in steps.items()])
    times = dict(zip(steps, np.array(rounds).T, strict=True))
    return {
        "pairs": len(rounds),
        "ms": {side: 1000 * float(np.median(found)) for side, found in times.items()},
        "ratio": {
            side: np.quantile(times["native"] / times[side], (0.5, 0.25, 0.75)).tolist() for side in ("ours", "exact")
        },
        "rivals": {
            side: np.quantile(times[side] / times["ours"], (0.5, 0.25, 0.75)).tolist()
            for side in steps
            if side not in ("native", "ours", "exact")
        },
    }


def _peaks(framework: Framework, case: Case, request: dict[str, Any]) -> dict[str, Any]:
    """Return the peaks of one side, in units of the logits."""
    arguments, weight = _arguments(framework, case)
    loss = framework.losses(case, weight)[request["side"]]
    passes = {"forward": framework.inference(loss), "training": framework.training(loss)}
    for step in passes.values():  # what a first call loads and compiles is not the loss's
        step(*(_arguments(framework, case.one())[0] if framework.pools else arguments))
    tidy()
    before = resident_bytes()
    peaks = {}
    for name, step in passes.items():
        on_device = framework.device_peak(partial(step, *arguments))
        if on_device is None:
            reset_peak()
            step(*arguments)
        peaks[name] = max(0, peak_bytes() - before if on_device is None else on_device)
    return {"memory": {name: peak / case.bytes for name, peak in peaks.items()}}


def reset_peak() -> None:
    """Count the peak anew; where that is not to be had, it may be that of an import or of the compilation."""
    file = Path("/proc/self/clear_refs")
    if os.access(file, os.W_OK):
        file.write_text("5")


def peak_bytes() -> int:
    # Linux counts in KiB, a Mac in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tidy() -> None:
    """Give back what is free, lest the next peak hide in it."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _growth(framework: Framework, side: str) -> int:
    """Return the bytes that 1,000 steps of changing shape leave behind, the first hundred not counted."""
    rng = np.random.default_rng(0)
    rows = range(64, 256, 48) if framework.compiles else range(1, 256)
    steps: dict[int, Loss] = {}
    before = 0
    for number in range(STEPS):
        if number == WARM_STEPS:
            tidy()
            before = resident_bytes()
        case = Case(f"{rng.choice(rows)}x{rng.choice((10, 50, 200))}")
        arguments, weight = _arguments(framework, case)
        if weight.size not in steps:
            steps[weight.size] = framework.training(framework.losses(case, weight)[side])
        steps[weight.size](*arguments)
    tidy()
    return resident_bytes() - before


def resident_bytes() -> int:
    """Return what is resident; where the system does not tell, the most that ever was."""
    return _bytes("/proc/self/status", "VmRSS") if sys.platform == "linux" else peak_bytes()


def _available_bytes() -> int:
    """Return the memory that can be had; where the system does not tell, all that the machine has."""
    if sys.platform != "linux":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _bytes("/proc/meminfo", "MemAvailable")


def _bytes(file: str, key: str) -> int:
    return next(1024 * int(line.split()[1]) for line in Path(file).read_text().splitlines() if line.startswith(key))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
