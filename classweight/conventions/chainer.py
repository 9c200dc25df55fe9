"""Chainer's losses as specs. Tested against chainer 7.8.1."""

from __future__ import annotations

from typing import Any

from ..errors import calling
from ..spec import Precision, Reduction, SigmoidCrossEntropy, SoftmaxCrossEntropy, _choice
from ._names import reduction_of

__all__ = ["sigmoid_cross_entropy", "softmax_cross_entropy"]


@calling(ignore_index="ignore_label")
def softmax_cross_entropy(
    normalize: bool = True,
    cache_score: bool = True,
    class_weight: Any = None,
    ignore_label: int = -1,
    reduce: str = "mean",
    enable_double_backprop: bool = False,
    soft_target_loss: str = "cross-entropy",
    *,
    soft_targets: bool = False,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``chainer.functions.softmax_cross_entropy``.

    row = v w[t] (-log q_t); the mean divides the sum by the number of positions that are not ignored, or with
    ``normalize=False`` by the length of the batch axis alone - never by weights. Nothing to divide by gives 0.

    Parameters
    ----------
    normalize, class_weight, ignore_label, reduce
        As in Chainer.
    cache_score, enable_double_backprop, soft_target_loss
        As in Chainer; they do not change the spec. "kl-divergence" adds a constant that no spec holds.
    soft_targets : bool
        Whether targets are distributions, to which `ignore_label` does not apply. Here weights and `normalize` do;
        Chainer drops both.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``SoftmaxCrossEntropy`` in chainer/functions/loss/softmax_cross_entropy.py, chainer 7.8.1.
    Tested against Chainer.

    Examples
    --------
    >>> softmax_cross_entropy(class_weight=[1, 2, 5], normalize=False)
    SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), ignore_index=-1, reduction='mean_over_batch')
    """
    del cache_score, enable_double_backprop
    _choice("soft_target_loss", soft_target_loss, ("cross-entropy", "kl-divergence"))
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        ignore_index=None if soft_targets else ignore_label,
        reduction=_reduction(normalize, reduce),
        precision=precision,
    )


def sigmoid_cross_entropy(
    normalize: bool = True, reduce: str = "mean", *, precision: Precision = "native"
) -> SigmoidCrossEntropy:
    """Return the spec of ``chainer.functions.sigmoid_cross_entropy``.

    element = v (t softplus(-x) + (1 - t) softplus(x)), v = 0 where t = -1; the mean divides the sum by the number of
    elements that are not ignored, or with ``normalize=False`` by the length of the batch axis. Nothing gives 0.

    Parameters
    ----------
    normalize, reduce
        As in Chainer.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``SigmoidCrossEntropy`` in chainer/functions/loss/sigmoid_cross_entropy.py, chainer 7.8.1.
    Tested against Chainer.

    Examples
    --------
    >>> sigmoid_cross_entropy()
    SigmoidCrossEntropy(ignore_label=-1, reduction='mean_over_valid')
    """
    return SigmoidCrossEntropy(ignore_label=-1, reduction=_reduction(normalize, reduce), precision=precision)


def _reduction(normalize: bool, reduce: str) -> Reduction:
    mean: Reduction = "mean_over_valid" if normalize else "mean_over_batch"
    return reduction_of(reduce, {"mean": mean, "no": "none"}, "reduce")
