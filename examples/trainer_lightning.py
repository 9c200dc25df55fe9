"""Class weights under Lightning: in micro-batches and on two processes, the updates are the whole batch's.

With ``accumulate_grad_batches`` a step sees one micro-batch at a time, whose mean Lightning divides by their number.
Here a batch is all that a process has of an update: its labels give the denominator, and the forward and backward go
through it in micro-batches. The example prints the largest difference from the whole batch's loss and parameters, in
ULPs of a tensor's largest entry in float32.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy
from classweight.adapters.torch import distributed

SPEC = SoftmaxCrossEntropy(class_weight=[1, 4, 20])
ROWS, STEPS = 24, 3


class Classifier(lightning.LightningModule):
    """Updates by the mean over all rows of all processes, whatever the micro-batches."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3))
        self.size, self.automatic_optimization = size, False

    def training_step(self, batch: list[Tensor], index: int) -> Tensor | None:
        denominator = distributed.denominator(SPEC, batch[1])
        optimizer: Any = self.optimizers()
        total = torch.zeros(())
        for x, y in zip(*(each.split(self.size) for each in batch), strict=True):
            loss = cwt.loss(SPEC, self.network(x), y, denominator=denominator)
            self.manual_backward(loss)
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        self.log("loss", total, sync_dist=True)
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Accumulating(Classifier):
    """Leaves the micro-batches to Lightning."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.automatic_optimization = True

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss = cwt.loss(SPEC, self.network(batch[0]), batch[1])
        self.log("loss", loss, sync_dist=True, on_step=False, on_epoch=True)
        return loss


def trained(kind: type[Classifier], size: int, processes: int) -> list[Tensor]:
    """Return the loss of the last step, and the parameters after it."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, 16, generator=generator), torch.randint(3, (ROWS,), generator=generator)
    of_process = ROWS // processes
    accumulated = kind is Accumulating
    model = kind(size)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_fork",
        max_epochs=STEPS,
        accumulate_grad_batches=of_process // size if accumulated else 1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), size if accumulated else of_process))
    return [trainer.callback_metrics["loss"], *(p.detach() for p in model.parameters())]


def ulps(a: Tensor, b: Tensor) -> float:
    largest = b.abs().max()
    return float((a - b).abs().max() / (torch.nextafter(largest, torch.tensor(torch.inf)) - largest))


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of few workers, and few steps to log
    torch.set_num_threads(1)
    expected = trained(Classifier, ROWS, 1)
    print(f"{'micro-batches of 4':34} {'loss':>12} {'parameters':>12}")
    for processes in (1, 2):
        for kind in (Classifier, Accumulating):
            loss, *parameters = map(ulps, trained(kind, 4, processes), expected)
            name = f"{kind.__name__}, {processes} process{'es' * (processes - 1)}"
            print(f"{name:34} {loss:>12,.0f} {max(parameters):>12,.0f}")
            assert max(loss, *parameters) <= 8 if kind is Classifier else min(loss, max(parameters)) > 1000


if __name__ == "__main__":
    main()
