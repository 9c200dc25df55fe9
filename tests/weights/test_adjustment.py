"""Logit adjustment is the paper's: its loss, its prediction, and the balanced error that they minimise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from classweight import ClassCounts, SoftmaxCrossEntropy, adjust_logits, logit_offsets
from classweight.adapters import numpy as cwn

COUNTS = [900, 90, 10]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1, 2.5])
def test_offsets_are_tau_times_the_logarithm_of_the_prior(tau: float) -> None:
    expected = tau * np.log(np.array(COUNTS) / 1000)
    labels = np.repeat([0, 1, 2], COUNTS)
    for given in ({"labels": labels}, {"counts": COUNTS}, {"labels": ClassCounts().update(labels)}):
        np.testing.assert_allclose(logit_offsets(tau=tau, **given), expected, rtol=1e-15)  # type: ignore[arg-type]


def test_the_adjusted_loss_is_that_of_equation_10() -> None:
    """log(1 + sum over y' != y of (prior y' / prior y)**tau exp(z y' - z y))."""
    rng = np.random.default_rng(0)
    z, y, tau = rng.normal(size=(7, 3)), rng.integers(0, 3, 7), 1.5
    prior = np.array(COUNTS) / 1000
    ratio = (prior[None] / prior[y][:, None]) ** tau * np.exp(z - z[np.arange(7), y][:, None])
    ratio[np.arange(7), y] = 0
    loss = cwn.loss(SoftmaxCrossEntropy(reduction="none"), adjust_logits(z, logit_offsets(counts=COUNTS, tau=tau)), y)
    np.testing.assert_allclose(loss, np.log1p(ratio.sum(1)), rtol=1e-13)


def test_taking_the_offsets_off_a_bayes_classifier_gives_the_balanced_one() -> None:
    """Equation 9: argmax of p(x | y), whatever the prior."""
    rng = np.random.default_rng(1)
    likelihood = rng.uniform(size=(200, 3))
    posterior = likelihood * np.array(COUNTS)
    scores = adjust_logits(np.log(posterior), -logit_offsets(counts=COUNTS))
    np.testing.assert_array_equal(scores.argmax(1), likelihood.argmax(1))
    assert (posterior.argmax(1) != likelihood.argmax(1)).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_their_type_and_their_gradient(dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    offsets = logit_offsets(counts=COUNTS)
    adjusted = adjust_logits(logits, offsets, axis=1)
    assert adjusted.dtype == dtype
    torch.testing.assert_close(adjusted[1, :, 2], torch.tensor(offsets).to(dtype), rtol=0, atol=0)
    F.cross_entropy(adjusted, torch.zeros(2, 4, dtype=torch.int64)).backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"counts": [1, 0]}, ValueError, "sample of each of the 2 classes"),
        ({"counts": [1, 1], "tau": np.inf}, ValueError, "`tau` must be a finite number"),
        ({"counts": [1, 1], "scheme": "power"}, TypeError, "unexpected keyword argument 'scheme'"),
        ({"labels": {"a": [0, 1], "b": [0, 1]}}, ValueError, "`labels` must be those of one output"),
    ],
)
def test_refusals(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        logit_offsets(**arguments)


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`offsets` must have shape \(3,\), one per class; got \(2,\)"):
        adjust_logits(np.zeros((2, 3)), [0.0, 1.0])
    with pytest.raises(ValueError, match=r"`axis` must be an axis of the logits, whose shape is \(2, 3\); got 2"):
        adjust_logits(np.zeros((2, 3)), [0.0, 1.0], axis=2)
