"""Token weights under `accelerate`: accumulated and on two processes, the updates are the whole batch's.

`Accelerator.backward` divides by the number of accumulation steps, and the processes' gradients are averaged: a mean of
means. Here the tokens of a tagger have weights, of their classes and of their own. The example prints the largest
difference from the whole batch's loss and parameters, in ULPs of a tensor's largest entry in float32.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from accelerate import Accelerator, debug_launcher
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy
from classweight.adapters.torch import distributed

SPEC = SoftmaxCrossEntropy(class_weight=[1, 4, 20], ignore_index=-100, axis=-1)
ROWS, LENGTH, STEPS = 24, 10, 3


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(40, (ROWS, LENGTH), generator=generator)
    lengths = torch.randint(1, LENGTH, (ROWS, 1), generator=generator)
    tags = torch.randint(3, (ROWS, LENGTH), generator=generator).where(torch.arange(LENGTH) < lengths, -100)
    return TensorDataset(ids, tags, torch.rand(ROWS, LENGTH, generator=generator))


def train(size: int, exact: bool, file: str) -> None:
    """Train in micro-batches of ``size``, and write the last loss and the parameters."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model: Any = nn.Sequential(nn.Embedding(40, 16), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.5)
    accelerator = Accelerator(cpu=True)
    accelerator.gradient_accumulation_steps = steps = ROWS // size // accelerator.num_processes
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data(), size))
    total = torch.zeros(())
    for _ in range(STEPS):
        batches = list(loader)  # of one update
        _, tags, weights = zip(*batches, strict=True)
        # What `backward` will divide by is taken out again.
        denominator = distributed.denominator(SPEC, tags, weights) / steps if exact else None
        total = torch.zeros(())
        for x, y, s in batches:
            with accelerator.accumulate(model):
                loss = cwt.loss(SPEC, model(x), y, s, denominator=denominator)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.detach() / steps
    total = accelerator.reduce(total, "mean")
    if accelerator.is_main_process:
        torch.save([total, *accelerator.unwrap_model(model).state_dict().values()], file)


def trained(size: int, exact: bool, processes: int) -> list[Tensor]:
    with tempfile.NamedTemporaryFile() as file:
        debug_launcher(train, (size, exact, file.name), num_processes=processes)
        found: list[Tensor] = torch.load(file.name)
        return found


def ulps(a: Tensor, b: Tensor) -> float:
    largest = b.abs().max()
    return float((a - b).abs().max() / (torch.nextafter(largest, torch.tensor(torch.inf)) - largest))


def main() -> None:
    expected = trained(ROWS, True, 1)
    print(f"{'micro-batches of 4':30} {'loss':>12} {'parameters':>12}")
    for processes in (1, 2):
        for exact in (True, False):
            loss, *parameters = map(ulps, trained(4, exact, processes), expected)
            name = f"{processes} process{'es' * (processes - 1)}, {'one denominator' if exact else 'means of parts'}"
            print(f"{name:30} {loss:>12,.0f} {max(parameters):>12,.0f}")
            assert max(loss, *parameters) <= 8 if exact else min(loss, max(parameters)) > 1000


if __name__ == "__main__":
    main()
