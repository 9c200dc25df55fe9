"""TensorFlow: tensors as labels, a dataset as a stream, and weights as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import classweight.adapters.tensorflow as cwtf
from classweight import (
    ClassCounts,
    SoftmaxCrossEntropy,
    adjust_logits,
    class_weights,
    logit_offsets,
    sample_weights,
)

LABELS = [0, 2, 2, 1, 2, 0]


@pytest.mark.parametrize(
    "labels",
    [
        tf.constant(LABELS),
        tf.constant(LABELS, tf.uint8),
        tf.Variable(LABELS),
        tf.one_hot(LABELS, 3),
        tf.cast(tf.one_hot(LABELS, 3), tf.bfloat16),
        tf.reshape(LABELS, (2, 3)),
    ],
    ids=["int32", "uint8", "variable", "one-hot", "bfloat16", "map"],
)
def test_tensors_are_labels(labels: Any) -> None:
    assert class_weights(labels).counts == (2, 1, 3)


def test_tensors_of_strings_are_names() -> None:
    weights = class_weights(tf.constant(["ox", "ant", "ox"]))
    assert weights.class_names == ("ant", "ox")
    assert weights.counts == (1, 2)


def test_a_dataset_is_a_stream() -> None:
    counts = ClassCounts()
    for labels, s in tf.data.Dataset.from_tensor_slices((LABELS, np.arange(6.0))).batch(4):
        counts.update(labels, s)
    assert counts.counts.tolist() == [5, 3, 7]


def test_weights_go_into_tensorflows_own_loss_and_into_ours() -> None:
    logits, weights = np.random.default_rng(0).normal(size=(6, 3)), class_weights(LABELS)
    s = tf.constant(sample_weights(tf.constant(LABELS), weights))
    rows = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
    expected = tf.reduce_sum(s * rows) / tf.reduce_sum(s)
    value = cwtf.loss(SoftmaxCrossEntropy(class_weight=weights), tf.constant(logits), tf.constant(LABELS))
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_array_equal(tf.gather(tf.constant(weights), LABELS), s)


def test_what_has_no_values_yet_is_refused() -> None:
    @tf.function
    def traced(labels: Any) -> None:
        class_weights(labels)

    with pytest.raises(TypeError, match=r"`labels` must be values of a regular shape that the host can read"):
        traced(tf.constant(LABELS))
    with pytest.raises((TypeError, ValueError), match="`labels` must be"):
        class_weights(tf.ragged.constant([[0, 1], [2]]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_logits_are_adjusted_in_their_own_type_and_in_a_graph(dtype: str) -> None:
    logits, offsets = tf.zeros((2, 3, 4), dtype), logit_offsets(tf.constant([0, 1, 1, 2]))

    def adjust(z: Any) -> Any:
        return adjust_logits(z, offsets, axis=1)

    for adjusted in (adjust(logits), tf.function(adjust)(logits)):
        assert adjusted.dtype == dtype
        np.testing.assert_array_equal(adjusted[1, :, 3], tf.cast(offsets, dtype))
