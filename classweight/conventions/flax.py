"""The loss of Flax's examples as a spec: Flax has none of its own. Tested against flax 0.12.8."""

from __future__ import annotations

from typing import Any

from ..errors import refuse
from ..spec import Precision, SoftmaxCrossEntropy

__all__ = ["compute_weighted_cross_entropy"]


def compute_weighted_cross_entropy(
    label_smoothing: float = 0.0,
    num_classes: int | None = None,
    *,
    class_weight: Any = None,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``compute_weighted_cross_entropy``, whose two results are then divided.

    row = s ((1 - e) L_y + e / (C - 1) sum_{c != y} L_c), with s the native ``weights``: at our call it is the sample
    weight, times w[label]. mean = sum / sum s. That is a smoothing of e C / (C - 1), as it is spread elsewhere.

    Parameters
    ----------
    label_smoothing : float
        As in Flax, e: what is taken from the label goes to the other classes.
    num_classes : int, optional
        C, which a smoothing cannot do without.
    class_weight : array-like or mapping
        What a recipe passes as ``weights=jnp.take(class_weight, targets)``.
    precision : "native" or "exact"
        Passed to the spec.

    Raises
    ------
    ValueError
        A smoothing without a number of classes, or one that leaves the label less than the others.

    Notes
    -----
    Source: examples/wmt/train.py and examples/lm1b/train.py of flax.
    Tested against these lines on flax.

    Examples
    --------
    >>> compute_weighted_cross_entropy(0.25, 2)
    SoftmaxCrossEntropy(weighting='label', label_smoothing=0.5, zero_denominator='nan', axis=-1)
    """
    label_smoothing = SoftmaxCrossEntropy(label_smoothing=label_smoothing).label_smoothing  # a number from 0 to 1
    if label_smoothing:
        if num_classes is None or num_classes < 2:
            refuse("num_classes", "be at least 2 where there is label_smoothing", num_classes)
        largest = (num_classes - 1) / num_classes
        if not 0 <= label_smoothing <= largest:
            refuse("label_smoothing", f"be a number from 0 to {largest:.4g}, that of equal parts", label_smoothing)
        label_smoothing = min(1.0, label_smoothing / largest)
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        weighting="label",
        label_smoothing=label_smoothing,
        zero_denominator="nan",
        axis=-1,
        precision=precision,
    )
