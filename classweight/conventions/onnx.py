"""ONNX's loss operator as a spec. Tested against the reference evaluator of onnx 1.23.2."""

from __future__ import annotations

from typing import Any

from ..errors import calling
from ..spec import Precision, SoftmaxCrossEntropy
from ._names import reduction_of

__all__ = ["softmax_cross_entropy_loss"]


@calling(class_weight="weights")
def softmax_cross_entropy_loss(
    weights: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    *,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of the operator ``SoftmaxCrossEntropyLoss``, opset 13.

    row = v w[t] (-log q_t), mean = sum / sum_i v_i w[t_i]. Nothing to divide by gives NaN. There is no smoothing and no
    distribution as target.

    Parameters
    ----------
    weights : array-like of shape (C,)
        The operator's third input: one weight a class.
    ignore_index, reduction
        As in ONNX.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``softmaxcrossentropy`` in onnx/reference/ops/op_softmax_cross_entropy_loss.py, onnx 1.23.2.
    Tested against its reference evaluator.

    Examples
    --------
    >>> softmax_cross_entropy_loss([1, 2, 5])
    SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), zero_denominator='nan')
    """
    return SoftmaxCrossEntropy(
        class_weight=weights,
        ignore_index=ignore_index,
        reduction=reduction_of(reduction, {"none": "none", "mean": "mean_over_weights", "sum": "sum"}),
        zero_denominator="nan",
        precision=precision,
    )
