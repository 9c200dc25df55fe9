"""`assert_conforms` passes a right loss of one's own, and says what is wrong with another."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import classweight.adapters.numpy as cwn
import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.conformance import assert_conforms
from classweight.conformance.own import cases_for

SPECS: dict[str, Any] = {
    "plain": SoftmaxCrossEntropy(),
    "smoothed": SoftmaxCrossEntropy(class_weight=[1, 2, 5], label_smoothing=0.1, reduction="none", precision="exact"),
    "last-axis": SoftmaxCrossEntropy(axis=-1, class_weight={0: 1, 2: 3}, missing_class_weight=1, ignore_index=0),
    "first-axis": SoftmaxCrossEntropy(axis=0, reduction="sum"),
    "third-axis": SoftmaxCrossEntropy(axis=2, reduction="none"),
    "probs": SoftmaxCrossEntropy(inputs="probs", clip=0.01, renormalize="before", precision="exact"),
    "binary": SigmoidCrossEntropy(class_weight=(1, [2, 3, 4, 5]), ignore_label=-1),
    "outputs": SigmoidCrossEntropy(average_outputs=True, reduction="none", label_smoothing=0.1),
    "log-probs": SigmoidCrossEntropy(inputs="log_probs", precision="exact"),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_adapters_conform_to_any_spec(name: str) -> None:
    spec = SPECS[name]
    assert_conforms(lambda z, t, s=None: cwt.loss(spec, z, t, s), spec, framework="torch")
    assert_conforms(lambda z, t, s=None: cwn.loss_and_grad(spec, z, t, s), spec, framework="numpy")
    if isinstance(spec, SoftmaxCrossEntropy) and spec.ignore_index is None:
        assert_conforms(lambda z, t: cwt.loss(spec, z, t), spec, framework="torch", targets="distribution")


def native(logits: Any, targets: Any) -> Any:
    return torch.nn.functional.cross_entropy(logits, targets)


def test_torchs_own_loss_fails_where_the_prediction_is_confident() -> None:
    spec = SoftmaxCrossEntropy(ignore_index=-100, zero_denominator="nan")
    with pytest.raises(AssertionError) as caught:
        assert_conforms(native, spec, framework="torch")
    text = str(caught.value)
    assert text.startswith("native is not SoftmaxCrossEntropy(ignore_index=-100, zero_denominator='nan'):\n")
    assert re.search(r"gradient\[\d, \d\] is -?0\.0, but should be .*ConfidentTarget\]", text)
    assert_conforms(native, spec, framework="torch", known=["own-confident-*", "own-ignored-nan-*", "own-wide-float*"])


def test_a_known_failure_that_passes_is_said() -> None:
    with pytest.raises(AssertionError, match="unexpected pass: own-normal-float32"):
        assert_conforms(lambda z, t: cwt.loss(SPECS["plain"], z, t), SPECS["plain"], "torch", known=["own-normal-*"])


def test_another_denominator_is_noticed() -> None:
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 5])
    other = SoftmaxCrossEntropy(class_weight=[1, 2, 5], reduction="mean_over_valid")
    with pytest.raises(AssertionError, match=r"loss is .*, but should be .* ULP away"):
        assert_conforms(lambda z, t: cwt.loss(other, z, t), spec, "torch")


def test_a_numpy_loss_without_a_gradient_is_judged_by_its_loss() -> None:
    spec = SPECS["plain"]
    assert_conforms(lambda z, t: cwn.loss(spec, z, t), spec, "numpy")
    with pytest.raises(AssertionError, match="loss is"):
        assert_conforms(lambda z, t: -cwn.loss(spec, z, t), spec, "numpy")


def test_distributions_have_no_ignored_index() -> None:
    with pytest.raises(
        ValueError, match="`targets` must be 'index' for a spec with an ignore_index; got 'distribution'"
    ):
        cases_for(SoftmaxCrossEntropy(ignore_index=1), targets="distribution")


def test_an_unknown_framework_is_refused() -> None:
    with pytest.raises(ValueError, match="`framework` must be one of numpy, torch"):
        assert_conforms(native, SPECS["plain"], "mxnet")
