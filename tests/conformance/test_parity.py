"""`assert_parity` passes losses that agree, and shows where others part."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import classweight.adapters.numpy as cwn
import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, conventions
from classweight.conformance import assert_parity

W = [1, 2, 5]
TORCH = conventions.torch.cross_entropy(W)
KERAS = conventions.keras.sparse_categorical_crossentropy(from_logits=True, class_weight=W)
SPEC = SoftmaxCrossEntropy(class_weight=W)
EXACT = SoftmaxCrossEntropy(class_weight=W, precision="exact")


def in_torch(spec: Any) -> Any:
    return lambda logits, targets, sample_weight=None: cwt.loss(spec, logits, targets, sample_weight)


def in_numpy(spec: Any) -> Any:
    return lambda logits, targets, sample_weight=None: cwn.loss_and_grad(spec, logits, targets, sample_weight)


@pytest.mark.parametrize("targets", ["index", "distribution", "binary"])
def test_the_adapters_agree_without_a_spec(targets: Any) -> None:
    spec: Any = SigmoidCrossEntropy(class_weight=(1, 3)) if targets == "binary" else SoftmaxCrossEntropy()
    losses = {"torch": in_torch(spec), "numpy": in_numpy(spec)}
    assert_parity(losses, targets=targets, positions=(2,) if targets != "binary" else ())


def test_exact_precision_gives_the_same_bits_and_native_does_not() -> None:
    assert_parity({"torch": in_torch(EXACT), "numpy": in_numpy(EXACT)}, EXACT, dtypes=("float32", "float16"), ulps=0)
    with pytest.raises(AssertionError, match=r"ULP apart; 0 allowed"):
        assert_parity({"torch": in_torch(EXACT), "numpy": in_numpy(SPEC)}, SPEC, ulps=0, dtypes=("float32",))


def test_another_denominator_is_shown_with_both_numbers_as_decimal_and_hex() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_parity({"torch": in_torch(TORCH), "torch-keras": in_torch(KERAS)}, num_classes=3, dtypes=("float32",))
    text = str(caught.value)
    first = re.match(
        r"torch, torch-keras are not one loss: 12 of 13 cases fail, the first of them own-normal-float32:\n"
        r"loss is (\S+) \((\S+)\) in torch and (\S+) \((\S+)\) in torch-keras: \S+ ULP apart; \d+ allowed\n"
        r"gradient\[0, 0\] is -\S+ \(-0x1\.\w+p-4\) in torch and ",
        text,
    )
    assert first
    one, other = (float(first[i]) for i in (1, 3))
    assert [one, other] == [float.fromhex(first[i]) for i in (2, 4)]
    labels = [int(label) for label in re.search(r"targets .*\n +\[(.*)\]", text)[1].split()]  # type: ignore[index]
    assert other / one == pytest.approx(sum(W[label] for label in labels) / len(labels), rel=1e-6)
    assert "called with\n  logits        float32 (6, 3)\n" in text
    assert "spec" not in text


def test_with_a_spec_the_one_that_is_wrong_is_named() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_parity({"torch": in_torch(SPEC), "numpy": in_numpy(KERAS)}, SPEC)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"torch, numpy are not all {SPEC}: ")
    assert re.match(r"numpy's loss is .*, but should be .* ULP away", lines[1])
    assert not any(line.startswith("torch's ") for line in lines)
    assert any(re.match(r"numpy looks like sum_i w\[y\] L\[y\] / \(.* rows\), as in ", line) for line in lines)


def test_a_wrong_gradient_beside_the_right_value_is_noticed() -> None:
    def detached(logits: Any, targets: Any) -> Any:
        weight = torch.nn.functional.softmax(logits, 1).sum().detach() / logits.softmax(1).sum()
        return cwt.loss(TORCH, logits, targets) * (1 + logits.mean() - logits.mean().detach()) * weight

    with pytest.raises(AssertionError, match=r"first of them own-normal-float32:\ngradient\[0, 0\] is "):
        assert_parity({"torch": detached, "numpy": in_numpy(TORCH)}, num_classes=3)


def test_a_vanished_gradient_is_noticed() -> None:
    """Where torch's is exactly 0; of one framework's habit all its own losses would agree."""

    def native(logits: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, targets)

    known = ["own-wide-*", "own-minus-inf-*"]
    with pytest.raises(
        AssertionError, match=r"own-confident-float32:\n(.*\n)*gradient\[\d, \d\] is 0\.0 \(0x0p\+0\) in"
    ):
        assert_parity({"torch": native, "numpy": in_numpy(conventions.torch.cross_entropy())}, known=known)
    assert_parity({"torch": native, "torch-module": torch.nn.CrossEntropyLoss()}, ulps=0)


def test_a_loss_in_another_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far.py").write_text(
        "import classweight.adapters.numpy as cwn\nfrom classweight import conventions\n"
        "spec = conventions.torch.cross_entropy([1, 2, 5])\n"
        "def right(logits, targets): return cwn.loss_and_grad(spec, logits, targets)\n"
        "def broken(logits, targets): raise ArithmeticError('no')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert_parity({"torch": in_torch(TORCH), "numpy": f"far:right@{sys.executable}"}, TORCH)
    with pytest.raises(AssertionError, match=r"numpy's loss is ArithmeticError: no, but should be numbers\n"):
        assert_parity({"torch": in_torch(TORCH), "numpy": "far:broken"}, num_classes=3)


def test_another_type_or_shape_is_said() -> None:
    losses = {"torch": in_torch(TORCH), "torch-wide": lambda z, t: cwt.loss(TORCH, z.double(), t)}
    with pytest.raises(AssertionError, match="loss's dtype is float32 in torch and float64 in torch-wide"):
        assert_parity(losses, num_classes=3)
    losses = {"torch": in_torch(TORCH), "torch-row": lambda z, t: cwt.loss(TORCH, z, t)[None]}
    with pytest.raises(AssertionError, match=r"loss's shape is \(\) in torch and \(1,\) in torch-row"):
        assert_parity(losses, num_classes=3)


def test_a_known_failure_that_passes_is_said() -> None:
    with pytest.raises(AssertionError, match=r"^unexpected pass: own-normal-float32, own-normal-sample-weight-float32"):
        assert_parity({"torch": in_torch(EXACT), "numpy": in_numpy(EXACT)}, EXACT, known=["own-normal-*32"])


def test_losses_that_return_nothing_are_noticed() -> None:
    with pytest.raises(AssertionError, match="numpy's loss is None, but should be numbers\nnumpy-too's loss is None"):
        assert_parity({"numpy": lambda z, t: None, "numpy-too": lambda z, t: None})


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="`losses` must hold two or more; got 1"):
        assert_parity({"torch": in_torch(TORCH)})
    with pytest.raises(ValueError, match="`framework` must be one of numpy, torch"):
        assert_parity({"torch": in_torch(TORCH), "mxnet": in_torch(TORCH)})
