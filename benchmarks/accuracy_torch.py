"""Native precision against PyTorch's own cross-entropy: worst error of float32 losses and gradients, a line a clause.

Errors are in ULPs of the true value (gradients of smoothed and soft targets, which cancel: in units of 2^-23 of the
largest), against the float64 reference. *zeros* counts results of exactly 0 where the truth is a normal number.

``python benchmarks/accuracy_torch.py``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import classweight.adapters.torch as cwt
from classweight import conventions
from classweight.reference import reference

ELEMENTS = 200_000
CLASSES = (2, 10, 1000, 20011)
KINDS = {"normal": 2.0, "wide": 12.0, "confident": 1.0, "offset": 3.0}
CLAUSES = ("hard", "weighted", "ignored", "smoothed", "soft")


def errors(result: torch.Tensor, truth: Any, *, cancels: bool) -> tuple[float, int]:
    """Return the worst distance and the number of wrong zeros."""
    found, size = result.detach().double().numpy(), np.abs(truth).astype(np.float32)
    normal = size > 2e-38
    if cancels:
        return float(np.abs(found - truth).max() / np.abs(truth).max() * 2**23), 0
    distance = np.abs(found - truth)[normal] / np.spacing(size[normal])
    return float(distance.max(initial=0)), int(((found == 0) & normal).sum())


def batch(clause: str, kind: str, num_classes: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Return logits, targets and native arguments."""
    rows = max(2, ELEMENTS // num_classes)
    y = torch.randint(0, num_classes, (rows,))
    z = torch.randn(rows, num_classes) * KINDS[kind]
    if kind == "confident":
        z[torch.arange(rows), y] += torch.rand(rows) * 52 + 8
    elif kind == "offset":
        z += torch.tensor([1e4, -1e4, 3e5])[torch.randint(0, 3, (rows, 1))]
    arguments: dict[str, Any] = {}
    if clause in ("weighted", "smoothed", "soft"):
        arguments["weight"] = torch.rand(num_classes) + 0.2
    if clause == "smoothed":
        arguments["label_smoothing"] = 0.1
    if clause == "soft":
        y = torch.softmax(torch.randn(rows, num_classes) * 3, 1)
    elif clause == "ignored":
        y[1:][torch.rand(rows - 1) < 0.3] = -100
    return z, y, arguments


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    print("clause     loss: ours    PyTorch  zeros: ours/PyTorch   gradient: ours    PyTorch  zeros: ours/PyTorch")
    for clause in CLAUSES:
        cancels = clause in ("smoothed", "soft")
        worst, zeros = np.zeros((2, 2)), np.zeros((2, 2), int)
        for kind in KINDS:
            for num_classes in CLASSES:
                z, t, arguments = batch(clause, kind, num_classes)
                for reduction in ("none", "mean"):
                    spec = conventions.torch.cross_entropy(
                        **arguments, reduction=reduction, soft_targets=clause == "soft"
                    )
                    upstream = torch.rand(len(z) if reduction == "none" else ()) + 0.5
                    truth = reference(spec, z.numpy(), t.numpy(), upstream=upstream.numpy())
                    for i, function in enumerate((cwt.cross_entropy, F.cross_entropy)):
                        leaf = z.clone().requires_grad_()
                        loss = function(leaf, t, reduction=reduction, **arguments)
                        (gradient,) = torch.autograd.grad(loss, leaf, upstream)
                        for j, (result, true) in enumerate(zip((loss, gradient), truth, strict=True)):
                            distance, wrong = errors(result, true, cancels=cancels and j == 1)
                            worst[j, i] = max(worst[j, i], distance)
                            zeros[j, i] += wrong
        columns = (f"{w[0]:10.3g} {w[1]:10.3g}  {n[0]:>9}/{n[1]}" for w, n in zip(worst, zeros, strict=True))
        print(f"{clause:10}", "   ".join(columns))


if __name__ == "__main__":
    main()
