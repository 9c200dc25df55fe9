"""`assert_conforms` passes a right loss of one's own, and says what is wrong with another."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

import classweight.adapters.numpy as cwn
import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, conventions
from classweight.conformance import assert_conforms
from classweight.conformance.backends import own_backend
from classweight.conformance.cases import load
from classweight.conformance.own import cases_for
from classweight.conformance.worker import answer

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


def test_torchs_own_loss_fails_where_the_prediction_is_confident() -> None:
    spec = SoftmaxCrossEntropy(ignore_index=-100, zero_denominator="nan")
    with pytest.raises(AssertionError) as caught:
        assert_conforms(torch.nn.functional.cross_entropy, spec, framework="torch")
    text = str(caught.value)
    assert re.match(
        r"cross_entropy is not SoftmaxCrossEntropy\(ignore_index=-100, zero_denominator='nan'\): 6 of \d+ cases fail, "
        r"the first of them own-wide-float32:\n"
        r"gradient\[\d, \d\] is \S+, but should be \S+ \(\S+ ULP away; \d+ allowed\)\n",
        text,
    )
    assert re.search(r"^  logits        float32 \(6, 5\)\n +\[\[", text, re.M)
    assert re.search(r"^  ConfidentTarget: The target's logit leads", text, re.M)
    assert re.search(r"^also own-confident-float32, own-ignored-nan-float32, ", text, re.M)
    known = ["own-confident-*", "own-ignored-nan-*", "own-wide-float*"]
    assert_conforms(torch.nn.functional.cross_entropy, spec, framework="torch", known=known)
    assert_conforms(torch.nn.CrossEntropyLoss(), spec, framework="torch", known=known)


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
        assert_conforms(torch.nn.functional.cross_entropy, SPECS["plain"], "mxnet")


def test_maps_of_labels_tell_the_batch_from_its_positions() -> None:
    spec = SoftmaxCrossEntropy(reduction="mean_over_batch", ignore_index=-1)
    per_pixel = SoftmaxCrossEntropy(reduction="mean_over_valid", ignore_index=-1)
    assert_conforms(lambda z, t, s=None: cwt.loss(spec, z, t, s), spec, "torch", positions=(2, 3))
    with pytest.raises(AssertionError, match=r"logits        float32 \(6, 5, 2, 3\)"):
        assert_conforms(lambda z, t: cwt.loss(per_pixel, z, t), spec, "torch", positions=(2, 3), known=["own-empty-*"])


def test_half_types_are_judged_where_they_are_asked_for() -> None:
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 5], precision="exact")
    dtypes = ("float16", "bfloat16")
    assert_conforms(lambda z, t, s=None: cwt.loss(spec, z, t, s), spec, "torch", dtypes=dtypes)
    with pytest.raises(AssertionError, match=r"loss's dtype is float32, but should be float16"):
        assert_conforms(lambda z, t, s=None: cwt.loss(spec, z.float(), t, s), spec, "torch", dtypes=dtypes)
    with pytest.raises(ValueError, match="`dtypes` must be among float16, bfloat16, float32, float64; got 'float8'"):
        cases_for(spec, dtypes=("float8",))


def test_a_wrapped_index_and_a_nan_from_a_hidden_class_are_noticed() -> None:
    def wrapping(logits: Any, targets: Any) -> Any:
        return cwt.loss(SPECS["plain"], logits, targets % logits.shape[1])

    with pytest.raises(AssertionError, match=r"own-index-of-C-float32:\nloss is [\d.]+, but should be an error"):
        assert_conforms(wrapping, SPECS["plain"], "torch")

    def dense(logits: Any, targets: Any) -> Any:
        return -(torch.nn.functional.one_hot(targets, logits.shape[1]) * logits.log_softmax(1)).sum(1).mean()

    with pytest.raises(AssertionError, match=r"own-minus-inf-float32:\nloss is nan, but should be [\d.]+\n"):
        assert_conforms(dense, SPECS["plain"], "torch", known=["own-wide-*", "own-confident-*", "own-empty-*"])


def test_an_ignored_index_of_c_is_no_error() -> None:
    ids = [case.id for case in cases_for(SoftmaxCrossEntropy(ignore_index=5), dtypes=("float32",)) if case.error]
    assert ids == ["own-index-below-0-float32"]


def test_a_loss_that_returns_nothing_or_depends_on_nothing_is_noticed() -> None:
    with pytest.raises(AssertionError, match="loss is None, but should be numbers"):
        assert_conforms(lambda z, t: None, SPECS["plain"], "numpy")
    with pytest.raises(AssertionError, match=r"loss is RuntimeError: .* does not require grad"):
        assert_conforms(lambda z, t: torch.ones(()), SPECS["plain"], "torch")


def test_what_a_wrong_loss_looks_like_is_named() -> None:
    """A spec of Keras, computed as PyTorch does; and smoothing that was forgotten."""
    keras = conventions.keras.sparse_categorical_crossentropy(from_logits=True, class_weight=[1, 2, 5])
    with pytest.raises(AssertionError) as caught:
        assert_conforms(lambda z, t: cwt.cross_entropy(z, t, torch.tensor([1, 2, 5.0]).to(z)), keras, "torch")
    assert re.search(r"^what it looks like\n  .* / sum_i w\[y\], as in torch\.cross_entropy\(", str(caught.value), re.M)
    spec = SPECS["smoothed"]
    mean, plain = (dataclasses.replace(spec, reduction="mean_over_weights", label_smoothing=e) for e in (0.1, 0))
    with pytest.raises(AssertionError, match="what it looks like\n  label smoothing not applied"):
        assert_conforms(lambda z, t: cwt.loss(plain, z, t), mean, "torch")


def test_a_badly_rounded_loss_looks_like_itself() -> None:
    def naive(logits: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, targets) * (1 + 1e-5)

    with pytest.raises(AssertionError) as caught:
        assert_conforms(naive, SPECS["plain"], "torch")
    assert "looks like" not in str(caught.value)


def test_a_loss_that_can_be_told_not_to_look_must_give_nan_for_a_bad_index() -> None:
    def loss(logits: Any, targets: Any, sample_weight: Any = None, validate: bool | None = None) -> Any:
        return cwt.loss(SPECS["plain"], logits, targets, sample_weight, validate=validate)

    def wrapping(logits: Any, targets: Any, validate: bool | None = None) -> Any:
        return loss(logits, targets if validate is None else targets % logits.shape[1])

    assert_conforms(loss, SPECS["plain"], "torch")
    with pytest.raises(AssertionError, match=r"own-unchecked-of-C-float32:\nloss is [\d.]+, but should be nan"):
        assert_conforms(wrapping, SPECS["plain"], "torch")


def test_a_loss_that_cannot_be_told_is_not_run() -> None:
    (case,) = (case for case in load() if case.id == "unchecked-good-float32-native")
    backend = own_backend("mine", lambda z, t: cwt.loss(SPECS["plain"], z, t), "torch")
    assert answer(backend, case.request())["not_run"] == "the loss has no argument `validate`"
