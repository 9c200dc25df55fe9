"""PyTorch's calls as specs. Tested against torch 2.13.0."""

from __future__ import annotations

from typing import Any

from ..errors import calling, refuse
from ..spec import Precision, Reduction, SigmoidCrossEntropy, SoftmaxCrossEntropy, _integer
from ._names import reduction_of

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"]


@calling(class_weight="weight")
def cross_entropy(
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    soft_targets: bool = False,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``torch.nn.functional.cross_entropy`` and ``torch.nn.CrossEntropyLoss``.

    With e the smoothing, L = -log softmax and v = 0 where ignored::

        index         row = v ((1 - e) w[t] L_t + (e / C) sum_c w_c L_c)     mean = sum / sum_i v_i w[t_i]
        distribution  row = sum_c w_c ((1 - e) y_c + e / C) L_c              mean = sum / number of positions

    The index mean of nothing (no row, all ignored, all weights 0) is NaN, and so is the mean of an empty batch.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing
        As in PyTorch, the deprecated ones included.
    soft_targets : bool
        Whether targets are distributions, which PyTorch divides by the number of positions instead.
    precision : "native" or "exact"
        Passed to the spec.

    Raises
    ------
    ValueError
        ``ignore_index >= 0`` with distributions, which PyTorch refuses too; infinite weights and smoothing outside
        [0, 1], which it takes.

    Notes
    -----
    Source: ``cross_entropy_loss`` in ATen/native/LossNLL.cpp, torch 2.13.0.
    Tested against torch.

    Examples
    --------
    >>> cross_entropy([1, 2, 5], label_smoothing=0.1)
    SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), label_smoothing=0.1, ignore_index=-100, zero_denominator='nan')
    >>> cross_entropy(soft_targets=True)
    SoftmaxCrossEntropy(reduction='mean_over_positions', zero_denominator='nan')
    """
    _integer("ignore_index", ignore_index, "be an int")
    if soft_targets and ignore_index >= 0:
        refuse("ignore_index", "be negative with distributions as targets", ignore_index)
    mean: Reduction = "mean_over_positions" if soft_targets else "mean_over_weights"
    return SoftmaxCrossEntropy(
        class_weight=weight,
        label_smoothing=label_smoothing,
        ignore_index=None if soft_targets else ignore_index,
        reduction=_reduction(size_average, reduce, reduction, mean),
        zero_denominator="nan",
        precision=precision,
    )


@calling(class_weight="weight")
def nll_loss(
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``torch.nn.functional.nll_loss`` and ``torch.nn.NLLLoss``.

    The input is taken as log-probabilities, unchecked: row = -v w[t] input_t, mean = sum / sum_i v_i w[t_i].

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction
        As in PyTorch, the deprecated ones included.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``nll_loss_nd`` in ATen/native/LossNLL.cpp, torch 2.13.0.
    Tested against torch.

    Examples
    --------
    >>> nll_loss(reduction="sum")
    SoftmaxCrossEntropy(ignore_index=-100, reduction='sum', zero_denominator='nan', inputs='log_probs')
    """
    _integer("ignore_index", ignore_index, "be an int")
    return SoftmaxCrossEntropy(
        class_weight=weight,
        ignore_index=ignore_index,
        reduction=_reduction(size_average, reduce, reduction, "mean_over_weights"),
        zero_denominator="nan",
        inputs="log_probs",
        precision=precision,
    )


@calling(class_weight="pos_weight")
def binary_cross_entropy_with_logits(
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
    *,
    precision: Precision = "native",
) -> SigmoidCrossEntropy:
    """Return the spec of ``torch.nn.functional.binary_cross_entropy_with_logits`` and ``torch.nn.BCEWithLogitsLoss``.

    element = s ((1 - y) z + (1 + (pos_weight - 1) y) softplus(-z)), mean = sum / number of elements, with s the native
    ``weight``: at our call it is the sample weight.

    Parameters
    ----------
    size_average, reduce, reduction, pos_weight
        As in PyTorch, the deprecated ones included.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``binary_cross_entropy_with_logits`` in ATen/native/Loss.cpp, torch 2.13.0.
    Tested against torch.

    Examples
    --------
    >>> binary_cross_entropy_with_logits(pos_weight=3)
    SigmoidCrossEntropy(class_weight=(1.0, 3.0), reduction='mean_over_positions', zero_denominator='nan')
    """
    return SigmoidCrossEntropy(
        class_weight=None if pos_weight is None else (1.0, pos_weight),
        reduction=_reduction(size_average, reduce, reduction, "mean_over_positions"),
        zero_denominator="nan",
        precision=precision,
    )


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str, mean: Reduction) -> Reduction:
    if size_average is not None or reduce is not None:
        # torch's rule: the deprecated pair wins, and what is missing of it is True.
        averaged, reduced = size_average is None or size_average, reduce is None or reduce
        reduction = ("mean" if averaged else "sum") if reduced else "none"
    return reduction_of(reduction, {"none": "none", "mean": mean, "sum": "sum", "elementwise_mean": mean})
