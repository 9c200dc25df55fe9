"""The loss of a vocabulary's layer, a step forward and backward: ours, and what PyTorch has for it.

    python benchmarks linear --rows 1024 --classes 32000 --classes 128256 --type float32

Peaks are of a process for each side, beside the arguments and their gradients; on a GPU, of its memory. A part of the
rows may be ignored.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import peak_bytes, reset_peak, resident_bytes, tidy
from torch.nn import functional

import classweight.adapters.torch as cwt
from classweight import conventions

__all__ = ["main"]

Step = Callable[[], tuple[Any, ...]]


def main(arguments: list[str]) -> int:
    """Print a line for each side of each shape; or, of one side, its peak."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    shape = f"{options.device}, {options.rows} x {options.features} hidden"
    for classes, name, ignored in itertools.product(options.classes, options.type, options.ignored):
        if options.peak:
            print(json.dumps(_peak(_sides(options, classes, name, ignored)[options.peak])))
            continue
        print(f"{shape}, {classes} classes, {name}, {ignored:.0%} ignored, threads: {options.threads}")
        for side, (seconds, ratio, peak) in _measured(options, classes, name, ignored).items():
            print(f"  {side:22}{seconds:8.3f} s  {ratio:6.2f} of native  {peak / 2**20:8.0f} MiB", flush=True)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks linear", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=4096)
    add("--features", type=int, default=2048)
    add("--classes", type=int, action="append")
    add("--type", action="append", choices=("float32", "bfloat16"))
    add("--ignored", type=float, action="append", help="the part of the rows that is ignored")
    add("--rounds", type=int, default=5)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--peak", metavar="SIDE", help="that side's peak alone, in bytes")
    options = parser.parse_args(arguments)
    options.classes = options.classes or [32000, 128256]
    options.type = options.type or ["float32", "bfloat16"]
    options.ignored = options.ignored or [0.0]
    return options


def _sides(options: argparse.Namespace, classes: int, name: str, ignored: float) -> dict[str, Step]:
    """Return each side's step, which gives the loss and the gradients of the hidden layer and the weight."""
    generator, dtype = torch.Generator().manual_seed(0), getattr(torch, name)
    device = options.device
    hidden = torch.randn(options.rows, options.features, generator=generator).to(device, dtype).requires_grad_()
    weight = torch.randn(classes, options.features, generator=generator).mul_(options.features**-0.5)
    weight = weight.to(device, dtype).requires_grad_()
    targets = torch.randint(classes, (options.rows,), generator=generator)
    targets[torch.rand(options.rows, generator=generator) < ignored] = -100
    targets = targets.to(device)
    spec = conventions.torch.cross_entropy()

    def native(hidden: Any, weight: Any) -> Any:
        return functional.cross_entropy(functional.linear(hidden, weight), targets)

    losses = {
        "native": native,
        "ours": lambda hidden, weight: cwt.linear_loss(spec, hidden, weight, targets),
        "compiled": torch.compile(native),
    }
    if hasattr(functional, "linear_cross_entropy"):  # PyTorch 2.13; its chunks are an option
        chunked = torch.nn.LinearCrossEntropyOptions()
        losses["linear_cross_entropy"] = lambda hidden, weight: functional.linear_cross_entropy(
            hidden, weight, targets, options=chunked
        )
    if device == "cuda" and importlib.util.find_spec("liger_kernel"):
        liger = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
        losses["liger"] = lambda hidden, weight: liger(hidden, weight, targets)

    def step_of(loss: Any) -> Step:
        def step() -> tuple[Any, ...]:
            value = loss(hidden, weight)
            found = value, *torch.autograd.grad(value, (hidden, weight))
            if device == "cuda":
                torch.cuda.synchronize()
            return found

        return step

    return {side: step_of(loss) for side, loss in losses.items()}


def _measured(
    options: argparse.Namespace, classes: int, name: str, ignored: float
) -> dict[str, tuple[float, float, int]]:
    """Return the median seconds of each side, of its ratio to the native one that ran beside it, and its peak."""
    peaks = {}
    steps = _sides(options, classes, name, ignored)
    for side in steps:
        given = {"rows": options.rows, "features": options.features, "ignored": ignored, "classes": classes}
        command = [sys.executable, str(Path(__file__).parent), "linear", "--peak", side, "--type", name]
        given |= {"threads": options.threads, "device": options.device}
        command += [f"--{key}={value}" for key, value in given.items()]
        peaks[side] = int(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    native = steps["native"]()
    for side, step in steps.items():
        for found, expected in zip(step(), native, strict=True):
            error = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
            if not error < (1e-3 if name == "float32" else 1 / 32):
                raise ValueError(f"no comparison, for it is not the same number: {side} is off by {error}")
    del native, found, expected
    times: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(options.rounds):
        for side, step in steps.items():
            gc.collect()
            start = time.perf_counter()
            step()
            times[side].append(time.perf_counter() - start)
    return {
        side: (
            statistics.median(found),
            statistics.median(own / other for own, other in zip(found, times["native"], strict=True)),
            peaks[side],
        )
        for side, found in times.items()
    }


def _peak(step: Step) -> int:
    """Return how far a second step raises what is resident, beside the gradients that it returns."""
    step()
    tidy()
    if torch.cuda.is_initialized():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        gradients = step()[1:]
        return torch.cuda.max_memory_allocated() - before - sum(x.nbytes for x in gradients)
    before = resident_bytes()
    reset_peak()
    gradients = step()[1:]
    return max(0, peak_bytes() - before - sum(x.nbytes for x in gradients))
