"""PyTorch: tensors as labels, weights as tensors, and a sampler whose double counting is undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import classweight.adapters.torch as cwt
from classweight import (
    ClassCounts,
    SoftmaxCrossEntropy,
    class_weights,
    correct_for_sampling,
    sample_weights,
    sampler_weights,
)

LABELS = torch.tensor([0, 2, 2, 1, 2, 0])
ONE_HOT = F.one_hot(LABELS, 3).double()


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.to(torch.uint8),
        LABELS.reshape(2, 3),
        list(LABELS),
        ONE_HOT,
        ONE_HOT.bfloat16(),
        ONE_HOT.half().requires_grad_(),
        LABELS.reshape(2, 3).T,
        torch.nn.Parameter(ONE_HOT),
    ],
    ids=lambda labels: f"{type(labels).__name__}-{getattr(labels, 'dtype', '')}",
)
def test_tensors_are_labels(labels: Any) -> None:
    assert class_weights(labels).counts == (2, 1, 3)


@pytest.mark.gpu
def test_tensors_on_a_device_are_labels() -> None:
    for labels in (LABELS.cuda(), list(LABELS.cuda()), ONE_HOT.bfloat16().cuda().requires_grad_()):
        assert class_weights(labels).counts == (2, 1, 3)
    counts = ClassCounts().update(LABELS.cuda(), LABELS.cuda().double(), mask=(LABELS > 0).cuda())
    assert counts.counts.tolist() == [0, 1, 6]


def test_counts_of_torch_are_counts() -> None:
    assert class_weights(counts=torch.bincount(LABELS)) == class_weights(LABELS)
    assert class_weights(dict(enumerate(torch.bincount(LABELS)))) == class_weights(LABELS)


def test_a_loader_is_a_stream() -> None:
    counts = ClassCounts()
    for (labels,) in DataLoader(TensorDataset(LABELS), batch_size=4):
        counts.update(labels)
    assert class_weights(counts) == class_weights(LABELS)


def test_weights_go_into_torchs_own_loss_and_into_ours() -> None:
    logits, weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), class_weights(LABELS)
    tensor = torch.as_tensor(weights, dtype=torch.float32)
    assert tensor.tolist() == np.float32(weights.values).tolist()
    expected = F.cross_entropy(logits, LABELS, tensor)
    for value in (
        cwt.loss(SoftmaxCrossEntropy(class_weight=weights), logits, LABELS),
        cwt.CrossEntropyLoss(weight=tensor)(logits, LABELS),
        cwt.loss(SoftmaxCrossEntropy(), logits, LABELS, torch.from_numpy(sample_weights(LABELS, weights))),
    ):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


# 2000 samples of three classes, and how far a mean over DRAWS of them may be from its expectation: six of its standard
# deviations, which two in a billion exceed.
COUNTS, DRAWS, DEVIATIONS = (1800, 180, 20), 200_000, 6
Y = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))


def drawn(weights: Any) -> torch.Tensor:
    sampler = WeightedRandomSampler(weights, DRAWS, generator=torch.Generator().manual_seed(1))
    return torch.tensor(list(sampler))


def test_a_sampler_draws_every_class_equally_often() -> None:
    shares = torch.bincount(Y[drawn(sampler_weights(Y))]) / DRAWS
    bound = DEVIATIONS * (1 / 3 * 2 / 3 / DRAWS) ** 0.5
    assert ((shares - 1 / 3).abs() < bound).all()


@pytest.mark.parametrize("scheme", ["balanced", "power"])
def test_the_correction_restores_the_objective_and_its_gradient(scheme: Any) -> None:
    """A weighted loss under a sampler counts twice; corrected, it is the weighted loss without one."""
    logits = torch.randn(len(Y), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    intended, sampling = class_weights(Y, "power", normalize="mean_sample"), class_weights(Y, scheme)
    weights = sampler_weights(Y, sampling)
    draws, p = drawn(weights), torch.from_numpy(weights / weights.sum())

    def objective(class_weight: Any) -> torch.Tensor:
        """Return each sample's loss and its gradient: what is linear in the samples."""
        z = logits.clone().requires_grad_()
        spec = SoftmaxCrossEntropy(class_weight=class_weight, reduction="none")
        losses = cwt.loss(spec, z, Y)
        losses.sum().backward()
        assert z.grad is not None
        return torch.cat([losses.detach()[:, None], z.grad], dim=1)

    expected = objective(intended).mean(0)
    terms = objective(correct_for_sampling(intended, sampling))
    deviation = (p @ terms.square() - (p @ terms).square()).sqrt() / DRAWS**0.5
    torch.testing.assert_close(p @ terms, expected, rtol=1e-12, atol=0)
    assert ((terms[draws].mean(0) - expected).abs() < DEVIATIONS * deviation).all()
    # Without the correction the loss is somewhere else.
    twice = objective(intended)[draws].mean(0)
    assert (twice - expected)[0].abs() > 20 * deviation[0]
