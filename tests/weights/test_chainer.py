"""Chainer: arrays and Variables as labels, and weights in its loss and in ours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer
    import chainer.functions as F

import classweight.adapters.chainer as cwch
from classweight import (
    ClassCounts,
    SoftmaxCrossEntropy,
    adjust_logits,
    class_weights,
    logit_offsets,
    sample_weights,
)

LABELS = np.array([0, 2, -1, 2, 1, 2, 0], np.int32)
LOGITS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.mark.parametrize("labels", [LABELS, chainer.Variable(LABELS), list(LABELS)], ids=["array", "variable", "list"])
def test_labels_are_counted_without_the_ignored(labels: Any) -> None:
    assert class_weights(labels, ignore_index=-1).counts == (2, 1, 3)


def test_a_variable_may_be_a_distribution() -> None:
    soft = chainer.Variable(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    assert class_weights(soft).counts == (0.75, 1.25)


def test_an_iterator_is_a_stream() -> None:
    counts = ClassCounts()
    for batch in chainer.iterators.SerialIterator(LABELS, 3, repeat=False, shuffle=False):
        counts.update(chainer.dataset.concat_examples(batch), ignore_index=-1)
    assert counts.counts.tolist() == [2, 1, 3]


def test_weights_go_into_chainers_own_loss_and_into_ours() -> None:
    weights = class_weights(LABELS, ignore_index=-1)
    native = F.softmax_cross_entropy(LOGITS, LABELS, class_weight=np.asarray(weights, np.float32))
    spec = SoftmaxCrossEntropy(class_weight=weights, ignore_index=-1, reduction="mean_over_valid")
    ours = cwch.loss(spec, chainer.Variable(LOGITS), LABELS)
    np.testing.assert_allclose(ours.array, native.array, rtol=1e-6)
    rows = F.softmax_cross_entropy(LOGITS, LABELS, reduce="no").array
    s = sample_weights(chainer.Variable(LABELS), weights, ignore_index=-1)
    np.testing.assert_allclose((s * rows).sum() / (LABELS >= 0).sum(), native.array, rtol=1e-6)


def test_logits_are_adjusted_and_have_a_gradient() -> None:
    logits, offsets = chainer.Variable(LOGITS), logit_offsets(LABELS, ignore_index=-1)
    adjusted = adjust_logits(logits, offsets)
    assert adjusted.dtype == LOGITS.dtype
    np.testing.assert_array_equal(adjusted.array, LOGITS + offsets.astype(LOGITS.dtype))
    F.sum(adjusted).backward()
    np.testing.assert_array_equal(logits.grad, np.ones_like(LOGITS))
