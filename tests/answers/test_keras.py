"""Numbers that Keras 3 gives on the backend that KERAS_BACKEND names, and the cause that is named for each."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from .surprises import IGNORED, NOTHING, ONE_HOT, STEPS_T, STEPS_Z, S, T, W, Y, Z, assert_named

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

BACKEND = keras.config.backend()
# Keras and torch ask NumPy for arrays in the way of NumPy 1.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning"),
]
WEIGHTS = dict(enumerate(W))
SPARSE, DENSE = "keras.sparse_categorical_crossentropy", "keras.categorical_crossentropy"
MWSW = "mean_with_sample_weight"


def of(kind: str, y_true: Any, y_pred: Any = Z, sample_weight: Any = None, **arguments: Any) -> str:
    """Return the loss class's value, as it prints."""
    arguments = {"from_logits": True} | arguments
    loss = getattr(keras.losses, kind)(**arguments)
    x = keras.ops.convert_to_tensor(np.asarray(y_pred, np.float32))
    value = loss(np.asarray(y_true), x, sample_weight=sample_weight)
    return f"{float(keras.ops.convert_to_numpy(value)):.6f}"


def sparse(*args: Any, **arguments: Any) -> str:
    return of("SparseCategoricalCrossentropy", *args, **arguments)


def dense(*args: Any, **arguments: Any) -> str:
    return of("CategoricalCrossentropy", *args, **arguments)


class TestFit:
    """The loss that train_on_batch reports of a model that does nothing."""

    def fit(self, loss: Any, y: Any, **weights: Any) -> str:
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Activation("linear")])
        model.compile(loss=loss)
        return f"{float(model.train_on_batch(Z.astype(np.float32), y, **weights)):.6f}"

    def test_row_1_labels_and_weights(self) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        call = f"{SPARSE}(from_logits=True, class_weight=w)"
        assert_named(self.fit(loss, T, class_weight=WEIGHTS), call, class_weight=W)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=MWSW)
        call = f"{SPARSE}(from_logits=True, reduction='{MWSW}', class_weight=w)"
        assert_named(self.fit(loss, T, class_weight=WEIGHTS), call, class_weight=W)

    def test_row_3_soft_targets_weigh_as_their_argmax(self) -> None:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        call = f"{DENSE}(from_logits=True, class_weight=w)"
        assert_named(self.fit(loss, Y, class_weight=WEIGHTS), call, targets=Y, class_weight=W)

    def test_row_4_smoothing(self) -> None:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
        call = f"{DENSE}(from_logits=True, class_weight=w, label_smoothing=0.1)"
        got = self.fit(loss, ONE_HOT, class_weight=WEIGHTS)
        assert_named(got, call, targets=ONE_HOT, class_weight=W, label_smoothing=0.1)

    def test_row_6_an_ignored_row(self) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        call = f"{SPARSE}(from_logits=True, class_weight=w, ignore_class=-1)"
        got = self.fit(loss, IGNORED, class_weight=WEIGHTS)
        assert_named(got, call, targets=IGNORED, class_weight=W, ignore_index=-1)

    def test_row_19_a_class_missing_from_the_dict(self) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        call = f"{SPARSE}(from_logits=True, class_weight=w)"
        answer = assert_named(self.fit(loss, T, class_weight={0: 7, 1: 3}), call, class_weight={0: 7, 1: 3})
        assert not any(call.startswith("torch") for match in answer.best for call in match.calls)


def test_row_5_an_ignored_row() -> None:
    call = f"{SPARSE}(from_logits=True, ignore_class=-1)"
    assert_named(sparse(IGNORED, ignore_class=-1), call, targets=IGNORED, ignore_index=-1)


def test_row_7_nothing_left_is_0() -> None:
    loss = float(sparse(NOTHING, ignore_class=-1))
    answer = assert_named(
        np.float32(loss), f"{SPARSE}(from_logits=True, ignore_class=-1)", targets=NOTHING, ignore_index=-1
    )
    assert not any(call == "torch.cross_entropy(ignore_index=-1)" for m in answer.best for call in m.calls)


def test_row_8_sample_weights() -> None:
    assert_named(sparse(T, sample_weight=S), f"{SPARSE}(from_logits=True)", sample_weight=S)
    loss = sparse(T, sample_weight=S, reduction=MWSW)
    assert_named(loss, f"{SPARSE}(from_logits=True, reduction='{MWSW}')", sample_weight=S)


def test_row_13_clipped_probabilities_end_at_16() -> None:
    logits = np.array([[1e4, 0, -1e4]])
    loss = of("CategoricalFocalCrossentropy", [[0.0, 0, 1]], logits, alpha=1.0, gamma=0.0)
    assert_named(loss, f"{DENSE}()", logits=logits, targets=[2])


@pytest.mark.skipif(BACKEND != "torch", reason="only there is -100 given a loss of 0")
def test_row_15_label_minus_100() -> None:
    targets = np.array([0, 1, -100, 1])
    change = "label -100 adds 0 and is counted"
    assert_named(sparse(targets), f"{SPARSE}(from_logits=True)", change, targets=targets)


@pytest.mark.skipif(BACKEND != "jax", reason="only there has a label beyond the classes a loss of 0")
def test_row_16_a_label_beyond_the_classes() -> None:
    targets = np.array([0, 1, 3, 1])
    change = "label 3 adds 0 and is counted"
    assert_named(sparse(targets), f"{SPARSE}(from_logits=True)", change, targets=targets)


@pytest.mark.filterwarnings("ignore")
def test_row_17_weights_of_samples_fall_on_time_steps() -> None:
    weight = np.array([1, 0.5, 3])
    loss = sparse(STEPS_T, STEPS_Z, sample_weight=weight)
    change = "sample weights applied to time steps, not to samples"
    given = {"logits": STEPS_Z, "targets": STEPS_T, "axis": 2, "sample_weight": weight}
    assert_named(loss, f"{SPARSE}(from_logits=True)", change, **given)


def test_row_18_the_sum_of_weights_before_they_are_broadcast() -> None:
    change = "divided by the sum of the sample weights before they are broadcast"
    call = f"{SPARSE}(from_logits=True, reduction='{MWSW}')"
    weight = np.array([[1.0], [3.0], [2.0]])
    loss = sparse(STEPS_T, STEPS_Z, sample_weight=weight, reduction=MWSW)
    given = {"logits": STEPS_Z, "targets": STEPS_T, "axis": 2, "sample_weight": weight[:, 0]}
    assert_named(loss, call, change, **given)


def test_row_23_clipped_probabilities() -> None:
    z = np.array([[30.0, -30.0]], np.float32)
    p = keras.ops.softmax(keras.ops.convert_to_tensor(z))
    values = keras.ops.convert_to_numpy(p)
    loss = keras.losses.SparseCategoricalCrossentropy()(np.array([1]), p)
    loss = f"{float(keras.ops.convert_to_numpy(loss)):.4f}"
    # TensorFlow's backend finds the logits again.
    call = "torch.cross_entropy()" if BACKEND == "tensorflow" else f"{SPARSE}()"
    assert_named(loss, call, logits=values, targets=[1], inputs="probs")


@pytest.mark.filterwarnings("ignore")
def test_row_24_smoothing_spread_over_the_wrong_axis() -> None:
    logits, labels = STEPS_Z.repeat(2, -1)[..., :4] * np.arange(1, 5), STEPS_T[:, :1].repeat(4, 1)
    y = np.moveaxis(np.eye(3)[labels], -1, 1)
    loss = dense(y, logits, axis=1, label_smoothing=0.1)
    change = "smoothing spread by 1/4, the length of the last axis, not 1/3"
    call = f"{DENSE}(from_logits=True, label_smoothing=0.1)"
    assert_named(loss, call, change, logits=logits, targets=labels, label_smoothing=0.1)


def test_from_logits_forgotten() -> None:
    p = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    change = "softmax applied twice: probabilities taken for logits"
    assert_named(sparse(T, p), f"{SPARSE}(from_logits=True)", change, logits=p, inputs="probs")
    change = "logits taken for probabilities: from_logits=True is missing"
    assert_named(sparse(T, Z, from_logits=False), f"{SPARSE}(from_logits=True)", change)


@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_binary(smoothing: float) -> None:
    targets = (np.arange(12).reshape(4, 3) % 3 > 0).astype(np.float32)
    loss = of("BinaryCrossentropy", targets, label_smoothing=smoothing, sample_weight=S)
    text = f", label_smoothing={smoothing}" if smoothing else ""
    given = {"targets": targets, "sample_weight": S, "label_smoothing": smoothing}
    assert_named(loss, f"keras.binary_crossentropy(from_logits=True{text})", **given)
