"""Numbers that Chainer gives, and the cause that is named for each."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .surprises import IGNORED, MAPS_T, MAPS_Z, NOTHING, T, W, Y, Z, assert_named

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer.functions as F

CALL = "chainer.softmax_cross_entropy"


def loss_of(targets: Any = T, logits: Any = Z, weight: Any = None, **arguments: Any) -> str:
    weight = None if weight is None else np.array(weight)
    return f"{float(F.softmax_cross_entropy(logits, targets, class_weight=weight, **arguments).array):.7f}"


def test_row_1_labels_and_weights() -> None:
    assert_named(loss_of(weight=W), f"{CALL}(class_weight=w)", class_weight=W)


def test_row_3_distributions_drop_the_weights() -> None:
    assert_named(loss_of(Y, weight=W), f"{CALL}(soft_targets=True)", targets=Y, class_weight=W)


def test_rows_5_and_6_an_ignored_row() -> None:
    assert_named(loss_of(IGNORED), f"{CALL}()", targets=IGNORED)
    assert_named(loss_of(IGNORED, normalize=False), f"{CALL}(normalize=False)", targets=IGNORED)
    assert_named(loss_of(IGNORED, weight=W), f"{CALL}(class_weight=w)", targets=IGNORED, class_weight=W)
    loss = loss_of(IGNORED, weight=W, normalize=False)
    assert_named(loss, f"{CALL}(normalize=False, class_weight=w)", targets=IGNORED, class_weight=W)


def test_row_7_nothing_left_is_0() -> None:
    assert_named(loss_of(NOTHING), f"{CALL}()", targets=NOTHING)


def test_row_13_a_wide_gap_is_the_loss() -> None:
    logits = np.array([[1e4, 0, -1e4]])
    assert_named(loss_of(np.array([2]), logits), f"{CALL}()", logits=logits, targets=[2])


def test_row_14_a_negative_label_counts_from_the_end() -> None:
    labels = np.array([0, 1, -1, 1])
    change = "negative labels counted from the last class"
    call = f"{CALL}(ignore_label=255)"
    assert_named(loss_of(labels, ignore_label=255), call, change, targets=labels, ignore_index=255)
    change = "labels that are no class clipped into range"
    loss = loss_of(labels, ignore_label=255, enable_double_backprop=True)
    assert_named(loss, call, change, targets=labels, ignore_index=255)


def test_row_16_a_label_beyond_the_classes_is_clipped() -> None:
    labels = np.array([0, 1, 3, 1])
    change = "labels that are no class clipped into range"
    assert_named(loss_of(labels, enable_double_backprop=True), f"{CALL}()", change, targets=labels)


def test_row_25_a_map_is_divided_by_the_batch() -> None:
    given = {"logits": MAPS_Z, "targets": MAPS_T, "class_weight": W}
    assert_named(loss_of(MAPS_T, MAPS_Z, W), f"{CALL}(class_weight=w)", **given)
    loss = loss_of(MAPS_T, MAPS_Z, W, normalize=False)
    assert_named(loss, f"{CALL}(normalize=False, class_weight=w)", **given)


def test_binary() -> None:
    targets = np.array([[1, 0, -1], [0, 0, 1], [1, 1, 0], [-1, 0, 0]])
    loss = f"{float(F.sigmoid_cross_entropy(Z, targets).array):.7f}"
    assert_named(loss, "chainer.sigmoid_cross_entropy()", targets=targets, ignore_index=-1, kind="sigmoid")
