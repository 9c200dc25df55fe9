"""scikit-learn's log loss as a spec. Tested against scikit-learn 1.9.1."""

from __future__ import annotations

from typing import Any

from ..spec import Precision, SoftmaxCrossEntropy

__all__ = ["log_loss"]


def log_loss(
    *, normalize: bool = True, class_weight: Any = None, precision: Precision = "native"
) -> SoftmaxCrossEntropy:
    """Return the spec of ``sklearn.metrics.log_loss`` on probabilities of shape ``(N, C)``.

    row = s (-log clip(p_t, eps, 1 - eps)) with eps that of the probabilities' type, and no renormalising;
    ``normalize=True`` divides the sum by sum s. Targets are indices into the columns: give scikit-learn
    ``labels=range(C)`` to mean the same. Its 1-d form, P(class 1), is the column pair (1 - p, p).

    Parameters
    ----------
    normalize : bool
        As in scikit-learn.
    class_weight : array-like or mapping
        Multiplies the sample weights by the label's weight, as ``compute_sample_weight`` and every estimator do.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``log_loss`` in sklearn/metrics/_classification.py, scikit-learn 1.9.1.
    Tested against scikit-learn.

    Examples
    --------
    >>> spec = log_loss()
    >>> spec.reduction, spec.inputs, spec.clip, spec.renormalize
    ('mean_over_weights', 'probs', 'dtype', None)
    """
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        missing_class_weight=1.0,
        weighting="label",
        reduction="mean_over_weights" if normalize else "sum",
        zero_denominator="nan",
        inputs="probs",
        clip="dtype",
        precision=precision,
    )
