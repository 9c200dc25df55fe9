"""A vocabulary shared out over processes: each has some tokens' weights, and the loss is that of all of them.

Three processes on the CPU, the last with fewer tokens than the others. Once a rank hands its weights and the process
group to `linear_loss`, and once a `LinearLoss` is made parallel as PyTorch makes a `torch.nn.Linear` so. The example
prints the largest differences from one process with the whole vocabulary, relative to the largest entries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.multiprocessing.spawn import start_processes

import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy

RANKS, TOKENS, FEATURES, VOCABULARY = 3, 512, 64, 50_000
SPEC = SoftmaxCrossEntropy(ignore_index=-100)


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a model says, the tokens that follow, what each weighs, and the vocabulary's weights."""
    generator = torch.Generator().manual_seed(0)
    hidden, labels = (
        torch.randn(TOKENS, FEATURES, generator=generator),
        torch.randint(VOCABULARY, (TOKENS,), generator=generator),
    )
    labels[::4] = -100  # padding
    weights = torch.rand(TOKENS, generator=generator)
    return hidden, labels, weights, torch.randn(VOCABULARY, FEATURES, generator=generator) / FEATURES**0.5


def step(compute: Callable[[Tensor], Tensor], weight: Tensor) -> list[Tensor]:
    """Return a loss and its gradients."""
    hidden = data()[0].requires_grad_()
    loss = compute(hidden)
    loss.backward()
    found = [loss.detach(), hidden.grad, weight.grad]
    return [x.to_local() if isinstance(x, DTensor) else x for x in found if x is not None]


def run(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    _, labels, weights, whole = data()
    alone = whole.clone().requires_grad_()
    expected = step(lambda hidden: cwt.linear_loss(SPEC, hidden, alone, labels, weights), alone)
    rows = -(-VOCABULARY // RANKS)
    mine = slice(rank * rows, (rank + 1) * rows)
    expected[2] = expected[2][mine]

    def report(name: str, found: list[Tensor]) -> None:
        differences = [float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, expected, strict=True)]
        largest = torch.tensor(differences)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        if rank == 0:
            print("{:<26} {:>8.1e} {:>8.1e} {:>8.1e}".format(name, *largest.tolist()))
        assert largest.max() < 1e-5

    if rank == 0:
        print(f"{'':26} {'loss':>8} {'hidden':>8} {'weight':>8}")
    shard = whole[mine].clone().requires_grad_()
    group = dist.group.WORLD
    report("linear_loss(group=)", step(lambda x: cwt.linear_loss(SPEC, x, shard, labels, weights, group=group), shard))

    head = cwt.LinearLoss(SPEC, FEATURES, VOCABULARY, bias=False)
    head.load_state_dict({"weight": whole})
    parallelize_module(head, init_device_mesh("cpu", (RANKS,)), ColwiseParallel(output_layouts=Replicate()))
    # It hands on arguments by their names.
    report("ColwiseParallel", step(lambda x: head(x, targets=labels, sample_weight=weights), head.weight))
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start_processes(run, (str(Path(folder) / "store"),), nprocs=RANKS, start_method="fork")


if __name__ == "__main__":
    main()
