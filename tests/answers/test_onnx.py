"""Numbers that ONNX's reference evaluator gives, and the cause that is named for each."""

from __future__ import annotations

from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator

from .surprises import IGNORED, T, W, Z, assert_named, np

LOSS = "SoftmaxCrossEntropyLoss"


def loss_of(targets: Any, logits: Any = Z, weights: Any = None, operator: str = LOSS, **attributes: Any) -> Any:
    names = ["logits", "targets", *([] if weights is None else ["weights"])]
    node = onnx.helper.make_node(operator, names, ["loss"], **attributes)
    values = [np.asarray(logits, np.float32), np.asarray(targets), *([] if weights is None else [np.float32(weights)])]
    types = [onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for value in values]
    infos = [onnx.helper.make_tensor_value_info(n, t, v.shape) for n, t, v in zip(names, types, values, strict=True)]
    output = onnx.helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, ())
    graph = onnx.helper.make_graph([node], "loss", infos, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    return ReferenceEvaluator(model).run(None, dict(zip(names, values, strict=True)))[0]


def test_row_1_labels_and_weights() -> None:
    call = "onnx.softmax_cross_entropy_loss(weights=w)"
    assert_named(f"{float(loss_of(T, weights=W)):.6f}", call, class_weight=W)


def test_rows_5_and_6_an_ignored_row() -> None:
    loss = float(loss_of(IGNORED, weights=W, ignore_index=-1))
    call = "onnx.softmax_cross_entropy_loss(weights=w, ignore_index=-1)"
    assert_named(f"{loss:.6f}", call, targets=IGNORED, class_weight=W, ignore_index=-1)


def test_row_5_the_evaluator_counts_an_ignored_row() -> None:
    log_p = Z - np.log(np.exp(Z).sum(-1, keepdims=True))
    loss = float(loss_of(IGNORED, log_p, operator="NegativeLogLikelihoodLoss", ignore_index=-1))
    change = "divided by the number of all rows"
    call = "onnx.softmax_cross_entropy_loss(ignore_index=-1)"
    answer = assert_named(
        f"{loss:.6f}",
        "chainer.softmax_cross_entropy(normalize=False, ignore_label=-1)",
        targets=IGNORED,
        ignore_index=-1,
    )
    assert any(match.changes == (change,) and call in match.calls for match in answer.others)


def test_row_13_softmax_underflows_before_its_logarithm() -> None:
    logits = np.array([[200.0, 0, 0]])
    with np.errstate(divide="ignore"):
        loss = loss_of([1], logits)
    call = "onnx.softmax_cross_entropy_loss()"
    assert_named(loss, call, "a softmax that underflows to 0 in float32", logits=logits, targets=[1])
