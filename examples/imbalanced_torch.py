"""Find the patients whose diabetes advances fastest: one in ten, so a plain loss learns to overlook them.

scikit-learn's diabetes data: 442 patients, ten measurements each, and how far the disease had advanced a year later.
The example trains a small network on it with and without class weights, prints which part of each class it finds in
patients that it has not seen, and then what one weighted batch costs by the habits of PyTorch and of Keras.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from sklearn.model_selection import RepeatedStratifiedKFold

import classweight.adapters.torch as cwt
from classweight import conventions

NAMES = ("the others", "fastest tenth")


def load() -> tuple[torch.Tensor, torch.Tensor]:
    measurements, progression = load_diabetes(return_X_y=True)
    fastest = progression >= np.quantile(progression, 0.9)
    scaled = measurements / np.std(measurements, axis=0)
    return torch.tensor(scaled, dtype=torch.float32), torch.tensor(fastest, dtype=torch.int64)


def balanced_weights(labels: torch.Tensor) -> torch.Tensor:
    """Return n / (k n_c) for each class c: every class weighs the same in all."""
    counts = torch.bincount(labels)
    return labels.numel() / (counts.numel() * counts)


def train(
    features: torch.Tensor, labels: torch.Tensor, class_weight: torch.Tensor | None, seed: int
) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    criterion = cwt.CrossEntropyLoss(weight=class_weight)
    for _ in range(20):
        for rows in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            criterion(model(features[rows]), labels[rows]).backward()
            optimizer.step()
    return model


def recall(*, weighted: bool) -> list[float]:
    """Return the part of each class that is found, in five-fold cross-validation repeated three times."""
    features, labels = load()
    found, total = torch.zeros(2), torch.zeros(2)
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
    for seed, (training, test) in enumerate(folds.split(features, labels)):
        class_weight = balanced_weights(labels[training]) if weighted else None
        model = train(features[training], labels[training], class_weight, seed)
        actual = labels[test]
        correct = model(features[test]).argmax(dim=1) == actual
        found += torch.bincount(actual[correct], minlength=2)
        total += torch.bincount(actual, minlength=2)
    return (found / total).tolist()


def main() -> None:
    torch.set_num_threads(1)  # for batches this small, threads wait for each other longer than they work
    plain, weighted = recall(weighted=False), recall(weighted=True)
    print("recall           without weights   with weights")
    for name, before, after in zip(NAMES, plain, weighted, strict=True):
        print(f"{name:<16} {before:>15.2f}   {after:>12.2f}")

    features, labels = load()
    class_weight = balanced_weights(labels)
    logits, targets = train(features, labels, class_weight, seed=0)(features[:64]), labels[:64]
    keras = conventions.keras.sparse_categorical_crossentropy(from_logits=True, class_weight=class_weight)
    losses = {
        "F.cross_entropy": F.cross_entropy(logits, targets, class_weight),
        "cwt.cross_entropy": cwt.cross_entropy(logits, targets, class_weight),
        "F.cross_entropy, sum / 64": F.cross_entropy(logits, targets, class_weight, reduction="sum") / 64,
        "cwt.loss, Keras's convention": cwt.loss(keras, logits, targets),
    }
    print()
    print("the same batch, logits and weights: PyTorch divides by the weights' sum, Keras by the number of rows")
    for name, loss in losses.items():
        print(f"{name:<30} {loss:.6f}")


if __name__ == "__main__":
    main()
