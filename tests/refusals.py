"""Calls that every adapter refuses, each with one clear sentence. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

Z = np.array([[2, -1, 0.5], [0, 1, -2], [0.5, 0.5, 3], [-1, 2, 0]])
Y = np.array([0, 1, 2, 1])
NAN, INF = np.nan, np.inf


@dataclass
class Refusal:
    match: str
    spec: Any = field(default_factory=SoftmaxCrossEntropy)
    logits: Any = field(default_factory=lambda: Z)
    targets: Any = field(default_factory=lambda: Y)
    arguments: dict[str, Any] = field(default_factory=dict)
    error: type[Exception] = ValueError


def soft(row: int, entry: float) -> Any:
    targets = np.eye(3)[Y]
    targets[row, 1] = entry
    return targets


weighted = SoftmaxCrossEntropy(class_weight=[1, 2])
mapping = SoftmaxCrossEntropy(class_weight={0: 1, 1: 2})
segmentation = {"logits": np.zeros((2, 3, 4, 4)), "targets": np.zeros((2, 4, 4), np.int64)}

REFUSALS = {
    "target-too-large": Refusal(
        r"`targets` must be class indices from 0 to 2; got 3 at position \(1,\)", targets=np.array([0, 3, 7, 1])
    ),
    "target-negative": Refusal(
        r"`targets` must be class indices from 0 to 2; got -1 at position \(2,\)", targets=np.array([0, 1, -1, 1])
    ),
    "target-that-would-wrap": Refusal(r"got -100 at position \(3,\)", targets=np.array([0, 1, 2, -100])),
    "target-neither-valid-nor-ignored": Refusal(
        r"got -2 at position \(3,\)", SoftmaxCrossEntropy(ignore_index=-1), targets=np.array([0, -1, 2, -2])
    ),
    "target-of-a-row-of-weight-zero": Refusal(
        r"got 9 at position \(0,\)",
        targets=np.array([9, 1, 2, 1]),
        arguments={"sample_weight": np.array([0.0, 1, 1, 1])},
    ),
    "target-in-a-map": Refusal(
        r"got 5 at position \(1, 2, 3\)",
        logits=segmentation["logits"],
        targets=np.where(np.arange(32).reshape(2, 4, 4) == 27, 5, 0),
    ),
    "float-index": Refusal(
        r"`targets` must be integers of shape \(4,\) or a distribution of shape \(4, 3\); got float64 of shape \(4,\)",
        targets=Y.astype(np.float64),
        error=TypeError,
    ),
    "target-shape": Refusal(r"`targets` must be .*; got int64 of shape \(3,\)", targets=Y[:3]),
    "target-column": Refusal(r"`targets` must be .*; got int64 of shape \(4, 1\)", targets=Y[:, None]),
    "distribution-nan": Refusal(
        r"`targets` must be finite and >= 0; got nan at position \(2, 1\)", targets=soft(2, NAN)
    ),
    "distribution-negative": Refusal(
        r"`targets` must be finite and >= 0; got -0.5 at position \(0, 1\)", targets=soft(0, -0.5)
    ),
    "distribution-infinite": Refusal(r"`targets` must be finite and >= 0; got inf", targets=soft(3, INF)),
    "ignore-index-with-distributions": Refusal(
        "`ignore_index` must be None for distributions, which have `mask`; got 0",
        SoftmaxCrossEntropy(ignore_index=0),
        targets=soft(0, 0.5),
    ),
    "integer-logits": Refusal("`logits` must be floating point; got int64", logits=Z.astype(np.int64), error=TypeError),
    "no-class": Refusal("`logits` must have at least one class", logits=np.zeros((4, 0))),
    "scalar-logits": Refusal(r"`logits` must have a class axis; got shape \(\)", logits=np.array(1.0)),
    "axis": Refusal(
        r"`axis` must be an axis of the logits, whose shape is \(4, 3\); got 2", SoftmaxCrossEntropy(axis=2)
    ),
    "weight-length": Refusal(r"`class_weight` must have shape \(3,\), one per class; got \(2,\)", weighted),
    "weight-length-at-the-call": Refusal(
        r"`class_weight` must have shape \(3,\), one per class; got \(4,\)", arguments={"class_weight": np.ones(4)}
    ),
    "weight-minus-infinite": Refusal(
        r"`class_weight` must be finite; got -inf at position \(1,\)",
        arguments={"class_weight": np.array([1.0, -INF, 1])},
    ),
    "weight-nan": Refusal(
        r"`class_weight` must be finite; got nan", arguments={"class_weight": np.array([1.0, 1, NAN])}
    ),
    "weight-infinite": Refusal(
        r"`class_weight` must be finite; got inf", arguments={"class_weight": np.array([INF, 1, 1])}
    ),
    "class-missing-from-a-mapping": Refusal("`class_weight` must name each of the 3 classes.*for class 2", mapping),
    "class-outside-a-mapping": Refusal(
        "`class_weight` must have keys from 0 to 2; got key 5",
        SoftmaxCrossEntropy(class_weight={0: 1, 1: 1, 2: 1, 5: 1}),
    ),
    "sample-weight-shape": Refusal(
        r"`sample_weight` must be a scalar or have a shape that is a prefix of \(4,\); got \(3,\)",
        arguments={"sample_weight": np.ones(3)},
    ),
    "sample-weight-that-is-a-suffix": Refusal(
        r"`sample_weight` must be .* a prefix of \(2, 4, 4\); got \(4, 4\)",
        **segmentation,
        arguments={"sample_weight": np.ones((4, 4))},
    ),
    "sample-weight-minus-infinite": Refusal(
        r"`sample_weight` must be finite; got -inf at position \(2,\)",
        arguments={"sample_weight": np.array([1.0, 1, -INF, 1])},
    ),
    "sample-weight-nan": Refusal(
        r"`sample_weight` must be finite; got nan", arguments={"sample_weight": np.array([NAN, 1, 1, 1])}
    ),
    "mask-of-numbers": Refusal(
        "`mask` must be bool; got int64", arguments={"mask": np.ones(4, np.int64)}, error=TypeError
    ),
    "mask-shape": Refusal(
        r"`mask` must be a scalar or have a shape that is a prefix of \(4,\); got \(4, 3\)",
        arguments={"mask": np.ones((4, 3), np.bool_)},
    ),
    "denominator-of-a-sum": Refusal(
        "`denominator` must be None unless the reduction is a mean; got 2.0 with 'sum'",
        SoftmaxCrossEntropy(reduction="sum"),
        arguments={"denominator": 2.0},
    ),
    "denominator-minus-infinite": Refusal(
        "`denominator` must be a finite number, .*; got -inf", arguments={"denominator": -INF}
    ),
    "denominator-shape": Refusal("`denominator` must be .*a scalar array", arguments={"denominator": np.ones(2)}),
    "no-spec": Refusal(
        "`spec` must be a SoftmaxCrossEntropy or a SigmoidCrossEntropy; got str", "mean", error=TypeError
    ),
    "binary-target-shape": Refusal(
        r"`targets` must be real or bool, of the logits' shape \(4, 3\); got int64 of shape \(4,\)",
        SigmoidCrossEntropy(),
    ),
    "binary-target-nan": Refusal(
        r"`targets` must be finite and >= 0; got nan at position \(2, 1\)", SigmoidCrossEntropy(), targets=soft(2, NAN)
    ),
    "binary-target-negative": Refusal(
        r"`targets` must be finite and >= 0; got -1.0 at position \(0, 1\)",
        SigmoidCrossEntropy(ignore_label=-2),
        targets=soft(0, -1),
    ),
    "binary-weight-shape": Refusal(
        r"`class_weight` must broadcast against the logits' shape \(4, 3\); got \(4,\)",
        SigmoidCrossEntropy(class_weight=(1, [1, 2, 3, 4])),
        targets=soft(0, 0),
    ),
    "binary-weight-at-the-call": Refusal(
        r"`class_weight` must be a pair \(negative, positive\)",
        SigmoidCrossEntropy(),
        targets=soft(0, 0),
        arguments={"class_weight": np.ones(3)},
    ),
}

each_refusal = pytest.mark.parametrize("refusal", list(REFUSALS.values()), ids=list(REFUSALS))


def assert_refused(refusal: Refusal, loss: Any, convert: Any) -> None:
    """Assert that ``loss`` refuses the call once ``convert`` has made native arrays of its arguments."""
    arguments = {k: convert(v) if isinstance(v, np.ndarray) else v for k, v in refusal.arguments.items()}
    with pytest.raises(refusal.error, match=refusal.match) as caught:
        loss(refusal.spec, convert(refusal.logits), convert(refusal.targets), **arguments)
    assert "\n" not in str(caught.value)
