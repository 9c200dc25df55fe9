"""Users' losses of PyTorch, TensorFlow and Keras in one process, held against each other."""

from __future__ import annotations

import re
from typing import Any

import keras
import pytest
import tensorflow as tf
import torch

import classweight.adapters.keras as cwk
import classweight.adapters.tensorflow as cwtf
import classweight.adapters.torch as cwt
from classweight import conventions
from classweight.conformance import assert_parity

W = [1, 2, 5]
SPEC = conventions.keras.sparse_categorical_crossentropy(from_logits=True, class_weight=W)


def test_the_adapters_agree_with_the_definition_and_each_other() -> None:
    losses = {
        "torch": lambda z, t, s=None: cwt.loss(SPEC, z, t, s),
        "tensorflow": lambda z, t, s=None: cwtf.loss(SPEC, z, t, s),
        "keras": lambda z, t, s=None: cwk.loss(SPEC, z, t, s),
    }
    assert_parity(losses, SPEC)


def test_the_frameworks_own_losses_agree_but_for_the_rounding_and_what_a_mean_of_nothing_is() -> None:
    losses = {"torch": torch_cross_entropy, "keras": keras_cross_entropy}
    with pytest.raises(AssertionError) as caught:
        assert_parity(losses, dtypes=("float32",))  # Keras has one type of loss, whatever the logits'
    failed = set(re.findall(r"own-[\w-]+(?=-float32)", str(caught.value)))
    assert failed - {"own-wide", "own-confident"} == {"own-empty"}


def test_a_ported_loss_with_class_weights_is_shown_to_be_another() -> None:
    def weighted(logits: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, targets, torch.tensor(W, dtype=logits.dtype))

    def ported(logits: Any, targets: Any) -> Any:
        return tf.reduce_mean(tf.gather(tf.constant(W, logits.dtype), targets) * rows(logits, targets))

    with pytest.raises(
        AssertionError, match=r"own-normal-float32:\nloss is 1\.87\d+ .* in torch and 4\.67\d+ .* in tens"
    ):
        assert_parity({"torch": weighted, "tensorflow": ported}, num_classes=3)


def torch_cross_entropy(logits: Any, targets: Any) -> Any:
    return torch.nn.functional.cross_entropy(logits, targets)


def keras_cross_entropy(logits: Any, targets: Any) -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(targets, logits)


def rows(logits: Any, targets: Any) -> Any:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
