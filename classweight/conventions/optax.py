"""optax's losses as specs, which reduce nothing. Tested against optax 0.2.8."""

from __future__ import annotations

from typing import Any

from ..spec import Precision, SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = [
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
]


def softmax_cross_entropy(
    axis: int = -1, *, class_weight: Any = None, precision: Precision = "native"
) -> SoftmaxCrossEntropy:
    """Return the spec of ``optax.softmax_cross_entropy``, its ``safe_`` form, and that ``_with_integer_labels``.

    row = w[label] sum_c y_c (-log q_c), with w the weight that the usual recipe multiplies by, and the label the
    argmax of a distribution. ``where`` of the rows is the mask of our call; rows that it leaves out are 0, and the
    usual mean counts them.

    Parameters
    ----------
    axis : int
        As in optax, which takes several axes, too.
    class_weight : array-like or mapping
        What the usual recipe multiplies by: ``jnp.take(class_weight, labels)``.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: optax/losses/_classification.py, optax 0.2.8.
    Tested against optax.

    Examples
    --------
    >>> softmax_cross_entropy(class_weight=[1, 2, 5])
    SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), weighting='label', reduction='none', axis=-1)
    """
    return SoftmaxCrossEntropy(
        class_weight=class_weight, weighting="label", reduction="none", axis=axis, precision=precision
    )


def sigmoid_binary_cross_entropy(*, class_weight: Any = None, precision: Precision = "native") -> SigmoidCrossEntropy:
    """Return the spec of ``optax.sigmoid_binary_cross_entropy``.

    element = y softplus(-z) + (1 - y) softplus(z), times what the usual recipe multiplies by:
    ``jnp.where(labels > 0.5, positive, negative)``.

    Parameters
    ----------
    class_weight : pair (negative, positive)
        Weights of the labels.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: optax/losses/_classification.py, optax 0.2.8.
    Tested against optax.

    Examples
    --------
    >>> sigmoid_binary_cross_entropy(class_weight=(1, 3))
    SigmoidCrossEntropy(class_weight=(1.0, 3.0), weighting='label', reduction='none')
    """
    return SigmoidCrossEntropy(class_weight=class_weight, weighting="label", reduction="none", precision=precision)
