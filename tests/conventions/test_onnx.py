"""ONNX's reference evaluator against its convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

from .configurations import COUNT, assert_same, batch
from .differences import Shown

shows = Shown("onnx")


def native(
    logits: Any, labels: Any, weights: Any = None, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    """Run one node of the operator."""
    feeds = {"scores": logits, "labels": labels} | ({} if weights is None else {"weights": weights})
    attributes = {} if ignore_index is None else {"ignore_index": ignore_index}
    node = onnx.helper.make_node("SoftmaxCrossEntropyLoss", list(feeds), ["loss"], reduction=reduction, **attributes)
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    output = onnx.helper.make_tensor_value_info("loss", onnx.helper.np_dtype_to_tensor_dtype(logits.dtype), None)
    graph = onnx.helper.make_graph([node], "loss", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, feeds)[0]


@pytest.mark.parametrize("case", range(COUNT))
def test_softmax_cross_entropy_loss(case: int) -> None:
    b = batch(case)
    index = b.pick(None, -1, 255, 0)
    arguments = {"weights": b.pick(None, b.class_weight), "ignore_index": index}
    arguments["reduction"] = b.pick("mean", "mean", "sum", "none")
    labels = (b.labels if index is None else b.marked(index)).astype(b.pick("int32", "int64"))
    spec = conventions.onnx.softmax_cross_entropy_loss(**arguments)
    assert_same((native(b.logits, labels, **arguments), None), spec, b.logits, labels)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_either_sign(reduction: str) -> None:
    logits, labels = np.array([[2.0, -1, 0.5], [0, 1, 2], [0.5, 0.25, -1]]), np.array([0, 1, 2])
    arguments: dict[str, Any] = {"weights": np.array([1.0, -0.5, -3]), "reduction": reduction}
    spec = conventions.onnx.softmax_cross_entropy_loss(**arguments)
    assert_same((native(logits, labels, **arguments), None), spec, logits, labels)


@shows("onnx-negative-labels")
def negative_labels() -> None:
    logits, labels = np.array([[2.0, -1, 0.5]]), np.array([-1])
    weights = np.array([3.0, 1, 1])
    expected = 3 * (np.log(np.exp(logits).sum()) - 0.5)
    assert native(logits, labels, weights, reduction="sum") == pytest.approx(expected, rel=1e-14)
    with pytest.raises(ValueError, match="`targets` must"):
        cwn.loss(conventions.onnx.softmax_cross_entropy_loss(), logits, labels)


@shows("onnx-cancelled-weights")
def cancelled_weights() -> None:
    logits, labels, weights = np.array([[2.0, -1, 0.5], [0, 1, 2]]), np.array([0, 1]), np.array([-1.0, 1, 3])
    assert np.isinf(native(logits, labels, weights))
    assert np.isnan(reference(conventions.onnx.softmax_cross_entropy_loss(weights), logits, labels)[0])


@shows("onnx-log-of-softmax")
def log_of_softmax() -> None:
    logits, labels = np.array([[110, 0]], np.float32), np.array([1])
    assert np.isinf(native(logits, labels))
    assert reference(conventions.onnx.softmax_cross_entropy_loss(), logits, labels)[0] == 110


@shows("onnx-invalid-weights")
def invalid_weights() -> None:
    logits, labels = np.array([[2.0, -1, 0.5], [0, 1, 2]]), np.array([0, 1])
    assert np.isnan(native(logits, labels, np.array([np.nan, 3, 1])))
    with pytest.raises(ValueError, match="`weights` must be a finite number"):
        conventions.onnx.softmax_cross_entropy_loss([np.nan, 3, 1])


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    shows.checks[difference]()
