"""PyTorch's errors say the arguments of the function that was called."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

from ..refusals import Z
from .names import BITS, Valid, Y, each_call, losses

CLASS, BINARY = {"input": Z, "target": Y}, {"input": Z, "target": BITS}
LAYER = {"hidden": Z, "weight": np.eye(3), "bias": np.ones(3)}
CALLS = {
    **losses(cwt, ["loss", "loss_parts"]),
    "linear_loss": Valid(cwt.linear_loss, {"spec": SoftmaxCrossEntropy(), "targets": Y, **LAYER}),
    "linear_loss-binary": Valid(cwt.linear_loss, {"spec": SigmoidCrossEntropy(), "targets": BITS, **LAYER}),
    "linear_loss_parts": Valid(cwt.linear_loss_parts, {"spec": SoftmaxCrossEntropy(), "targets": Y, **LAYER}),
    "LinearLoss": Valid(
        cwt.LinearLoss(SoftmaxCrossEntropy(), 3, 3, dtype=torch.float64).forward, {"hidden": Z, "targets": Y}
    ),
    "cross_entropy": Valid(cwt.cross_entropy, CLASS),
    "cross_entropy-distributions": Valid(cwt.cross_entropy, BINARY),
    "nll_loss": Valid(cwt.nll_loss, CLASS),
    "binary_cross_entropy_with_logits": Valid(cwt.binary_cross_entropy_with_logits, BINARY),
    "CrossEntropyLoss": Valid(cwt.CrossEntropyLoss().forward, CLASS),
    "NLLLoss": Valid(cwt.NLLLoss().forward, CLASS),
    "BCEWithLogitsLoss": Valid(cwt.BCEWithLogitsLoss().forward, BINARY),
    "Loss-softmax": Valid(cwt.Loss(SoftmaxCrossEntropy()).forward, {"logits": Z, "targets": Y}),
    "Loss-binary": Valid(cwt.Loss(SigmoidCrossEntropy()).forward, {"logits": Z, "targets": BITS}),
}


@each_call(cwt, CALLS)
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    assert call.assert_errors_name_arguments(torch.tensor)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_errors_of_a_module_say_its_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=r"^`weight` must"):
        getattr(cwt, name)(weight=torch.tensor([1.0, 2]))(torch.tensor(Z, dtype=torch.float32), torch.tensor(Y))
