"""Class weights and token weights in `transformers.Trainer`: split or not, the updates are the whole batch's.

The trainer counts labels and calls that `num_items_in_batch`; a weighted mean divides by the sum of their weights. A
batch of 12 is trained on at once, and then in micro-batches of 3, by one process and by two. The example prints the
largest difference of loss and parameters, in ULPs of a tensor's largest entry in float32: with the sum of the weights,
with the count of the labels, and with the usual override of `compute_loss`, the mean of each micro-batch.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState, debug_launcher
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, Trainer, TrainingArguments

import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy
from classweight.adapters.torch import distributed

ROWS, LENGTH, VOCABULARY = 12, 10, 40
SPECS = {
    "class weights": SoftmaxCrossEntropy(class_weight=[1, 4, 20]),
    "token weights": SoftmaxCrossEntropy(axis=-1, ignore_index=-100),
}


class WeightedTrainer(Trainer):
    """Divides the losses of a step by the weights of all its micro-batches, on all processes."""

    spec: SoftmaxCrossEntropy
    loss_is_scaled_for_ga = True

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Tensor | None]:
        batches, _ = super().get_batch_samples(*arguments)
        labels, weights = zip(*map(targets, batches), strict=True)
        return batches, distributed.denominator(self.spec, labels, None if weights[0] is None else weights)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        outputs = model(inputs["input_ids"])
        labels, weight = targets(inputs)
        logits = outputs.logits[:, : labels.shape[1]] if labels.ndim == 2 else outputs.logits
        loss = cwt.loss(self.spec, logits, labels, weight, denominator=num_items_in_batch)
        self.losses.append(loss.detach())
        return (loss, outputs) if return_outputs else loss


class CountingTrainer(WeightedTrainer):
    """Divides them by the number of labels, as the trainer counts them."""

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Tensor | None]:
        batches, _ = super().get_batch_samples(*arguments)
        count = torch.stack([targets(batch)[0].ne(-100).sum() for batch in batches]).sum()
        if dist.is_initialized():
            dist.all_reduce(count)
            count = count / dist.get_world_size()
        return batches, count


class PlainTrainer(WeightedTrainer):
    """Takes the mean of each micro-batch alone."""

    loss_is_scaled_for_ga = False

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Tensor | None]:
        return super().get_batch_samples(*arguments)[0], None


def targets(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Return labels and weights; those of a token are its successor's."""
    if "token_weight" not in batch:
        return batch["labels"], None
    return batch["labels"][:, 1:], batch["token_weight"][:, 1:]


def rows(task: str) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(ROWS):
        ids, length = generator.integers(1, VOCABULARY, LENGTH), generator.integers(2, LENGTH)
        if task == "class weights":
            found.append({"input_ids": ids, "labels": generator.choice(3, p=[0.6, 0.3, 0.1])})
        else:
            labels = np.where(np.arange(LENGTH) < length, ids, -100)
            weight = generator.choice([0.1, 1, 10], LENGTH).astype(np.float32)
            found.append({"input_ids": ids, "labels": labels, "token_weight": weight})
    return found


def train(kind: type[WeightedTrainer], task: str, size: int, folder: str) -> None:
    """Train in micro-batches of ``size``, and write the last loss and the parameters."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, pad_token_id=0, num_labels=3, **shape)
    model = (LlamaForSequenceClassification if task == "class weights" else LlamaForCausalLM)(config)
    steps = ROWS // size // PartialState(cpu=True).num_processes
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=steps,
        max_steps=2,
        learning_rate=0.5,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        remove_unused_columns=False,  # of which the weights are one
        use_cpu=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = kind(model, arguments, train_dataset=rows(task))
    trainer.spec, trainer.losses = SPECS[task], []
    trainer.train()
    loss = torch.stack(trainer.losses[-steps:]).sum() / (1 if kind.loss_is_scaled_for_ga else steps)
    loss = trainer.accelerator.reduce(loss, "mean")
    if trainer.is_world_process_zero():
        torch.save([loss, *model.state_dict().values()], f"{folder}/found")


def trained(kind: type[WeightedTrainer], task: str, size: int, processes: int) -> list[Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        debug_launcher(train, (kind, task, size, folder), num_processes=processes)
        found: list[Tensor] = torch.load(f"{folder}/found")
        return found


def ulps(a: Tensor, b: Tensor) -> float:
    largest = b.abs().max()
    return float((a - b).abs().max() / (torch.nextafter(largest, torch.tensor(torch.inf)) - largest))


def main() -> None:
    print(f"{'micro-batches of 3':44} {'loss':>12} {'parameters':>12}")
    for task in SPECS:
        expected = trained(WeightedTrainer, task, ROWS, 1)
        for kind, processes in ((WeightedTrainer, 1), (WeightedTrainer, 2), (CountingTrainer, 2), (PlainTrainer, 2)):
            loss, *parameters = map(ulps, trained(kind, task, 3, processes), expected)
            name = f"{task}, {processes} process{'es' * (processes - 1)}, {kind.__name__}"
            print(f"{name:44} {loss:>12,.0f} {max(parameters):>12,.0f}")
            exact = kind is WeightedTrainer
            assert max(loss, *parameters) <= 8 if exact else min(loss, max(parameters)) > 1000


if __name__ == "__main__":
    main()
