"""What holds for every page: the table of differences, signatures, and no framework behind them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, conventions
from classweight.conventions import DIFFERENCES, Difference

PAGES = [name for name in conventions.__all__ if name.islower()]
FUNCTIONS = {
    f"{page.__name__.rpartition('.')[2]}.{name}": getattr(page, name)
    for page in (getattr(conventions, name) for name in PAGES)
    for name in page.__all__
}
TESTS = Path(__file__).parent


def test_every_convention_of_the_design_is_there() -> None:
    assert sorted(FUNCTIONS) == [
        "chainer.sigmoid_cross_entropy",
        "chainer.softmax_cross_entropy",
        "flax.compute_weighted_cross_entropy",
        "keras.binary_crossentropy",
        "keras.categorical_crossentropy",
        "keras.sparse_categorical_crossentropy",
        "onnx.softmax_cross_entropy_loss",
        "optax.sigmoid_binary_cross_entropy",
        "optax.softmax_cross_entropy",
        "sklearn.log_loss",
        "tensorflow.v1_softmax_cross_entropy",
        "tensorflow.weight_map",
        "tensorflow.weighted_cross_entropy_with_logits",
        "torch.binary_cross_entropy_with_logits",
        "torch.cross_entropy",
        "torch.nll_loss",
    ]


def required(function: Any) -> list[float]:
    """Return a weight for each argument that has no default."""
    return [2.0 for p in inspect.signature(function).parameters.values() if p.default is inspect.Parameter.empty]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_precision_passes_through(name: str) -> None:
    weights = [[w] for w in required(FUNCTIONS[name])]
    for precision in ("native", "exact"):
        spec = FUNCTIONS[name](*weights, precision=precision)
        assert isinstance(spec, SoftmaxCrossEntropy | SigmoidCrossEntropy)
        assert spec.precision == precision
    with pytest.raises(ValueError, match="`precision` must be one of 'native', 'exact'; got 'double'"):
        FUNCTIONS[name](*weights, precision="double")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_states_source_and_test(name: str) -> None:
    text = FUNCTIONS[name].__doc__
    assert all(words in text for words in ("Source: ", "Tested against", ">>> "))


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda d: d.id)
def test_a_difference_is_complete_and_shown(difference: Difference) -> None:
    assert difference.framework in PAGES
    assert difference.id.startswith(f"{difference.framework}-")
    assert all(getattr(difference, name) for name in Difference.__slots__)
    assert f'@shows("{difference.id}")' in (TESTS / f"test_{difference.framework}.py").read_text()


def test_ids_are_unique() -> None:
    assert len({d.id for d in DIFFERENCES}) == len(DIFFERENCES)


def test_no_framework_is_imported() -> None:
    frameworks = {"torch", "keras", "tensorflow", "chainer", "sklearn", "onnx", "jax", "optax", "flax"}
    code = f"import sys, classweight.conventions; print({frameworks!r} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
