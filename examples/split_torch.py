"""One weighted mean, split over uneven micro-batches and over processes: the updates are the whole batch's.

Up to four processes on the CPU, each with rows of its own, some of them ignored, in two micro-batches. A mean over the
rows of a part is no part of the mean: without the denominator of all, the parameters become another model's. The
example prints the largest difference from the whole batch's loss and parameters, in ULPs of float32.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy
from classweight.adapters.torch import distributed

SPEC = SoftmaxCrossEntropy(class_weight=[1, 4, 20], ignore_index=-100)
# The rows of each process's micro-batches, by the number of processes.
ROWS = {1: [[9, 2, 21, 8]], 2: [[9, 2], [21, 8]], 4: [[9, 2], [3, 4], [12, 1], [2, 7]]}
STEPS = 3
COMPILER = (sys.argv[1:] or ["aot_eager"])[0]  # or inductor, whose start takes longer than all else here


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 16, generator=generator), torch.randint(3, (40,), generator=generator)
    return x, y.where(torch.rand(40, generator=generator) < 0.7, -100)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3))


def share(model: Any, x: Tensor, y: Tensor, denominator: Tensor) -> Tensor:
    """Return a micro-batch's share of the mean."""
    return cwt.loss(SPEC, model(x), y, denominator=denominator)


def mean(model: Any, x: Tensor, y: Tensor, denominator: Tensor) -> Tensor:
    """Return the mean of a micro-batch alone."""
    return cwt.loss(SPEC, model(x), y)


def train(model: Any, parts: Sequence[tuple[Tensor, Tensor]], group: Any, compute: Any) -> list[Tensor]:
    """Return the loss of the last step, and the parameters after it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    total = torch.zeros(())
    for _ in range(STEPS):
        denominator = distributed.denominator(SPEC, [y for _, y in parts], group=group)
        total = torch.zeros(())
        for i, (x, y) in enumerate(parts):
            is_last = i == len(parts) - 1
            with model.no_sync() if hasattr(model, "no_sync") and not is_last else contextlib.nullcontext():
                loss = compute(model, x, y, denominator)
                loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
    dist.all_reduce(total, group=group)
    parameters = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return [total.div(dist.get_world_size(group)), *parameters]


def ulps(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    pairs = [(a.detach().numpy(), b.detach().numpy()) for a, b in zip(found, expected, strict=True)]
    return max(float(np.max(np.abs(a - b) / np.spacing(np.maximum(np.abs(a), np.abs(b))))) for a, b in pairs)


def report(
    name: str, ranks: int, wrap: Callable[[nn.Module], Any], group: Any, alone: Any, compute: Any = share
) -> None:
    """Train on this process's rows, and hold it against training on all of them."""
    rank, (x, y) = dist.get_rank(), data()
    start, rows = sum(map(sum, ROWS[ranks][:rank])), ROWS[ranks][rank]
    mine = slice(start, start + sum(rows))
    parts = list(zip(x[mine].split(rows), y[mine].split(rows), strict=True))
    expected = train(network(), [(x, y)], alone, share)
    differences = []
    for each in (compute, lambda *arguments: mean(*arguments) / len(parts)):
        found = train(wrap(network()), parts, group, each)
        differences += [ulps(found[:1], expected[:1]), ulps(found[1:], expected[1:])]
    if rank == 0:
        print("{:<32} {:>6.0f} {:>10.0f} {:>14,.0f} {:>12,.0f}".format(name, *differences))
    assert max(differences[:2]) <= 16
    assert min(differences[2:]) > 1000


def run(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=4)
    (alone, _), two = dist.new_subgroups(1), dist.new_group([0, 1])
    compiled = torch.compile(share, backend=COMPILER)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))["shards"]
    if rank == 0:
        print(f"{'':32} {'one denominator':>17} {'means of the parts':>27}")
        print(f"{'':32} {'loss':>6} {'parameters':>10} {'loss':>14} {'parameters':>12}")
        report("4 micro-batches", 1, lambda model: model, alone, alone)
        report("4 micro-batches, compiled", 1, lambda model: model, alone, alone, compiled)
    if rank < 2:
        wrap = partial(DistributedDataParallel, process_group=two)
        report("DDP of 2, 2 micro-batches each", 2, wrap, two, alone)
        report("DDP of 2, compiled", 2, lambda model: wrap(torch.compile(model, backend=COMPILER)), two, alone)
        report("FSDP2 of 2", 2, partial(fully_shard, mesh=mesh), mesh.get_group(), alone)
    report("DDP of 4, 2 micro-batches each", 4, DistributedDataParallel, None, alone)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        start_processes(run, (store,), nprocs=4, start_method="fork")


if __name__ == "__main__":
    main()
