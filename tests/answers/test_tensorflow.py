"""Numbers that TensorFlow and Keras 2 give, and the cause that is named for each."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from classweight import identify

from .surprises import KEPT, ONE_HOT, ROWS, STEPS_T, STEPS_Z, S, T, W, Y, Z, assert_named

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf

v1 = tf.compat.v1.losses
CALL = "tensorflow.v1_softmax_cross_entropy"
MEAN, PER_ROW = v1.Reduction.MEAN, v1.Reduction.SUM_OVER_BATCH_SIZE
LABEL_WEIGHTS = np.array(W)[T]


def sparse(labels: Any = T, weights: Any = 1.0, **arguments: Any) -> Any:
    return v1.sparse_softmax_cross_entropy(labels, tf.constant(Z), weights, **arguments).numpy()


def dense(weights: Any = 1.0, **arguments: Any) -> Any:
    return v1.softmax_cross_entropy(ONE_HOT, tf.constant(Z), weights, **arguments).numpy()


def keras_2(y: Any, x: Any = Z, **weights: Any) -> float:
    """Return the loss that Keras 2 reports of a model that does nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras

        model = tf_keras.Sequential([tf_keras.layers.Activation("linear", input_shape=np.shape(x)[1:])])
        model.compile(loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return float(model.train_on_batch(np.asarray(x, np.float32), y, **weights))


def test_row_1_labels_and_weights() -> None:
    assert_named(f"{sparse(weights=LABEL_WEIGHTS):.6f}", f"{CALL}(class_weight=w)", class_weight=W)
    loss = sparse(weights=LABEL_WEIGHTS, reduction=MEAN)
    assert_named(f"{loss:.6f}", f"{CALL}(reduction='weighted_mean', class_weight=w)", class_weight=W)


def test_row_3_a_weight_map_is_outside_the_sum() -> None:
    losses = tf.nn.softmax_cross_entropy_with_logits(Y, Z)
    loss = tf.reduce_mean(losses * tf.reduce_sum(Y * np.array(W), -1))
    assert_named(loss.numpy(), "tensorflow.weight_map(class_weight=w)", targets=Y, class_weight=W)


def test_row_4_smoothing() -> None:
    given = {"class_weight": W, "label_smoothing": 0.1}
    loss = dense(LABEL_WEIGHTS, label_smoothing=0.1)
    assert_named(f"{loss:.6f}", f"{CALL}(class_weight=w, label_smoothing=0.1)", **given)
    loss = dense(LABEL_WEIGHTS, label_smoothing=0.1, reduction=MEAN)
    assert_named(f"{loss:.6f}", f"{CALL}(reduction='weighted_mean', class_weight=w, label_smoothing=0.1)", **given)


def test_rows_5_and_6_an_ignored_row_of_weight_0() -> None:
    mask = KEPT > 0
    assert_named(f"{sparse(ROWS, KEPT):.6f}", f"{CALL}()", targets=ROWS, mask=mask)
    loss = sparse(ROWS, KEPT, reduction=PER_ROW)
    assert_named(f"{loss:.6f}", f"{CALL}(reduction='weighted_sum_over_batch_size')", targets=ROWS, mask=mask)
    loss = sparse(ROWS, KEPT * np.array(W)[ROWS])
    assert_named(f"{loss:.6f}", f"{CALL}(class_weight=w)", targets=ROWS, mask=mask, class_weight=W)


def test_row_8_sample_weights() -> None:
    assert_named(f"{sparse(weights=S):.6f}", f"{CALL}()", sample_weight=S)
    assert_named(f"{sparse(weights=S, reduction=MEAN):.6f}", f"{CALL}(reduction='weighted_mean')", sample_weight=S)


def test_row_9_keras_2_multiplies() -> None:
    loss = keras_2(T, sample_weight=S, class_weight=dict(enumerate(W)))
    call = "keras.sparse_categorical_crossentropy(from_logits=True, class_weight=w)"
    assert_named(f"{loss:.6f}", call, class_weight=W, sample_weight=S)


def test_row_14_a_label_that_is_no_class_under_xla_is_nan() -> None:
    labels = np.array([0, 1, -1, 1])
    op = tf.function(tf.nn.sparse_softmax_cross_entropy_with_logits, jit_compile=True)
    loss = tf.reduce_mean(op(tf.constant(labels), tf.constant(Z))).numpy()
    change = "the row of a label that is no class is NaN"
    assert_named(loss, f"{CALL}()", change, targets=labels)


def test_row_17_keras_2_weighs_samples() -> None:
    weight = np.array([1, 0.5, 3])
    loss = keras_2(STEPS_T[..., None], STEPS_Z, sample_weight=weight)
    call = "keras.sparse_categorical_crossentropy(from_logits=True)"
    assert_named(f"{loss:.6f}", call, logits=STEPS_Z, targets=STEPS_T, axis=2, sample_weight=weight)


def test_row_20_integer_sample_weights_truncate_class_weights() -> None:
    given = {"sample_weight": np.array([1, 1, 2, 1]), "class_weight": [0.5, 1.5, 2.9]}
    loss = keras_2(T, sample_weight=given["sample_weight"], class_weight=dict(enumerate(given["class_weight"])))
    call = "keras.sparse_categorical_crossentropy(from_logits=True, class_weight=w)"
    assert_named(f"{loss:.6f}", call, "class weights truncated to integers, the type of the sample weights", **given)


@pytest.mark.parametrize("row", range(4))
def test_row_22_bfloat16_is_no_other_convention(row: int) -> None:
    logits = tf.constant(Z[row : row + 1], tf.bfloat16)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(T[row : row + 1], logits)[0]
    answer = identify(f"{float(loss):.7f}", Z[row : row + 1], T[row : row + 1], dtype="bfloat16")
    assert "torch.cross_entropy()" in answer.best[0].calls
    assert "as bfloat16 rounds" in str(answer)
