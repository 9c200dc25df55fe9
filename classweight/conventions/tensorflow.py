"""TensorFlow's losses as specs. Tested against tensorflow 2.21.0."""

from __future__ import annotations

from typing import Any

from ..errors import calling
from ..spec import Precision, Reduction, SigmoidCrossEntropy, SoftmaxCrossEntropy
from ._names import reduction_of

__all__ = ["v1_softmax_cross_entropy", "weight_map", "weighted_cross_entropy_with_logits"]

# The values of tf.compat.v1.losses.Reduction; SUM_OVER_NONZERO_WEIGHTS is SUM_BY_NONZERO_WEIGHTS.
REDUCTIONS: dict[str | None, Reduction] = {
    "none": "none",
    "weighted_sum": "sum",
    "weighted_mean": "mean_over_weights",
    "weighted_sum_over_batch_size": "mean_over_positions",
    "weighted_sum_by_nonzero_weights": "mean_over_nonzero",
}


def v1_softmax_cross_entropy(
    label_smoothing: float = 0.0,
    reduction: str = "weighted_sum_by_nonzero_weights",
    *,
    class_weight: Any = None,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``tf.compat.v1.losses.softmax_cross_entropy`` and ``sparse_softmax_cross_entropy``.

    row = s sum_c ((1 - e) y_c + e / C) (-log q_c), with s the native ``weights``: at our call it is the sample weight,
    times w[label]. The sum is divided by what `reduction` says, or is 0 where that is 0::

        weighted_mean                     sum s
        weighted_sum_over_batch_size      number of positions
        weighted_sum_by_nonzero_weights   number of positions with s != 0

    Parameters
    ----------
    label_smoothing : float
        As in TensorFlow; the sparse function has none.
    reduction : str
        A value of ``tf.compat.v1.losses.Reduction``.
    class_weight : array-like or mapping
        What the usual recipe passes as ``weights=tf.gather(class_weight, labels)``.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``compute_weighted_loss`` in tensorflow/python/ops/losses/losses_impl.py, tensorflow 2.21.0.
    Tested against TensorFlow.

    Examples
    --------
    >>> v1_softmax_cross_entropy(class_weight=[1, 2, 5])
    SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), weighting='label', reduction='mean_over_nonzero', axis=-1)
    """
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        weighting="label",
        label_smoothing=label_smoothing,
        reduction=reduction_of(reduction, REDUCTIONS),
        axis=-1,
        precision=precision,
    )


@calling(class_weight="pos_weight")
def weighted_cross_entropy_with_logits(pos_weight: Any, *, precision: Precision = "native") -> SigmoidCrossEntropy:
    """Return the spec of ``tf.nn.weighted_cross_entropy_with_logits``, which reduces nothing.

    element = (1 - y) z + (1 + (pos_weight - 1) y) softplus(-z).

    Parameters
    ----------
    pos_weight : float or array-like
        As in TensorFlow, but it must broadcast to the logits' shape.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``weighted_cross_entropy_with_logits_v2`` in tensorflow/python/ops/nn_impl.py, tensorflow 2.21.0.
    Tested against TensorFlow.

    Examples
    --------
    >>> weighted_cross_entropy_with_logits(3)
    SigmoidCrossEntropy(class_weight=(1.0, 3.0), reduction='none')
    """
    return SigmoidCrossEntropy(class_weight=(1.0, pos_weight), reduction="none", precision=precision)


def weight_map(class_weight: Any, *, precision: Precision = "native") -> SoftmaxCrossEntropy:
    """Return the spec of the U-Net recipe: each pixel's loss times its weight in a map made from the labels.

    ``tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, z) * tf.reduce_sum(y * class_weight, -1))``, that is
    sum_i (sum_c w_c y_ic) (sum_c y_ic L_ic) / number of positions. No pixel at all gives NaN.

    Parameters
    ----------
    class_weight : array-like or mapping
        One weight a class.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``Unet._get_cost`` in tf_unet/unet.py.
    Tested against the recipe in TensorFlow.

    Examples
    --------
    >>> spec = weight_map([1, 2, 5])
    >>> spec.weighting, spec.reduction, spec.axis
    ('expected', 'mean_over_positions', -1)
    """
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        weighting="expected",
        reduction="mean_over_positions",
        zero_denominator="nan",
        axis=-1,
        precision=precision,
    )
