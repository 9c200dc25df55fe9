"""Keras 3's losses as specs, with ``class_weight`` as ``fit`` applies it.

The positional arguments are those of the functions in ``keras.losses``; ``reduction`` is the loss class's. Keras turns
``class_weight`` into sample weights by the label - for distributions their argmax before smoothing, for a binary
target whether it exceeds 0.5 - and a class that the mapping lacks weighs 1. A mask, Keras's or ``ignore_class``,
takes positions out of the mean's count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..errors import calling, refuse
from ..spec import Precision, Reduction, SigmoidCrossEntropy, SoftmaxCrossEntropy, _choice, _integer
from ._names import reduction_of

__all__ = ["binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"]

EPSILON = 1e-7  # keras.config.epsilon() unless the user changed it
BACKENDS = ("tensorflow", "torch", "jax", "numpy")
REDUCTIONS: dict[str | None, Reduction] = {
    "sum_over_batch_size": "mean_over_valid",
    "mean": "mean_over_valid",
    "mean_with_sample_weight": "mean_over_weights",
    "sum": "sum",
    "none": "none",
    None: "none",
}


@calling(ignore_index="ignore_class")
def sparse_categorical_crossentropy(
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    *,
    reduction: str | None = "sum_over_batch_size",
    class_weight: Any = None,
    backend: str = "tensorflow",
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``keras.losses.SparseCategoricalCrossentropy``.

    row = s w[t] (-log q_t); "sum_over_batch_size" and "mean" divide the sum by the number of positions that
    `ignore_class` leaves, "mean_with_sample_weight" by the sum of their weights. Nothing to divide by gives 0.
    From probabilities p, q is made as the backend does::

        tensorflow           q = clip(p, 1e-7, 1 - 1e-7), divided by its sum
        torch, jax, numpy    q = clip(p / sum p, 1e-7, 1 - 1e-7)

    Parameters
    ----------
    from_logits, ignore_class, axis, reduction
        As in Keras.
    class_weight : mapping or array-like
        As in ``fit``.
    backend : "tensorflow", "torch", "jax" or "numpy"
        The Keras backend whose treatment of probabilities is meant. Logits give the same spec on each.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``sparse_categorical_crossentropy`` in keras/src/losses/losses.py and backend/*/nn.py, ``reduce_values`` in
    losses/loss.py, keras 3.15.1.
    Tested against Keras on the TensorFlow, torch, JAX and NumPy backends.

    Examples
    --------
    >>> spec = sparse_categorical_crossentropy(from_logits=True, class_weight={0: 2, 1: 5})
    >>> spec.class_weight, spec.missing_class_weight
    (((0, 2.0), (1, 5.0)), 1.0)
    >>> spec = sparse_categorical_crossentropy(ignore_class=255, backend="jax")
    >>> spec.reduction, spec.clip, spec.renormalize
    ('mean_over_valid', 1e-07, 'before')
    """
    _choice("backend", backend, BACKENDS)
    renormalize: Literal["before", "after"] = "after" if backend == "tensorflow" else "before"
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        missing_class_weight=1.0,
        weighting="label",
        ignore_index=ignore_class,
        reduction=reduction_of(reduction, REDUCTIONS),
        axis=axis,
        inputs="logits" if from_logits else "probs",
        clip=None if from_logits else EPSILON,
        renormalize=None if from_logits else renormalize,
        precision=precision,
    )


def categorical_crossentropy(
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    *,
    reduction: str | None = "sum_over_batch_size",
    class_weight: Any = None,
    precision: Precision = "native",
) -> SoftmaxCrossEntropy:
    """Return the spec of ``keras.losses.CategoricalCrossentropy``.

    row = s w[argmax y] sum_c ((1 - e) y_c + e / C) (-log q_c), reduced as in `sparse_categorical_crossentropy`. From
    probabilities p, q = clip(p / sum p, 1e-7, 1 - 1e-7) on every backend.

    Parameters
    ----------
    from_logits, label_smoothing, axis, reduction
        As in Keras.
    class_weight : mapping or array-like
        As in ``fit``.
    precision : "native" or "exact"
        Passed to the spec.

    Notes
    -----
    Source: ``categorical_crossentropy`` in keras/src/losses/losses.py and backend/*/nn.py,
    ``class_weight_to_sample_weights`` in trainers/data_adapters, keras 3.15.1.
    Tested against Keras on the TensorFlow, torch, JAX and NumPy backends.

    Examples
    --------
    >>> spec = categorical_crossentropy(label_smoothing=0.1)
    >>> spec.weighting, spec.label_smoothing, spec.renormalize
    ('label', 0.1, 'before')
    """
    return SoftmaxCrossEntropy(
        class_weight=class_weight,
        missing_class_weight=1.0,
        weighting="label",
        label_smoothing=label_smoothing,
        reduction=reduction_of(reduction, REDUCTIONS),
        axis=axis,
        inputs="logits" if from_logits else "probs",
        clip=None if from_logits else EPSILON,
        renormalize=None if from_logits else "before",
        precision=precision,
    )


def binary_crossentropy(
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    *,
    reduction: str | None = "sum_over_batch_size",
    class_weight: Any = None,
    precision: Precision = "native",
) -> SigmoidCrossEntropy:
    """Return the spec of ``keras.losses.BinaryCrossentropy``.

    With y' = (1 - e) y + e / 2 and D the length of the last axis::

        row = s (1 / D) sum_d w[y_d > 0.5] (y'_d (-log p_d) + (1 - y'_d) (-log(1 - p_d)))

    reduced over rows as in `sparse_categorical_crossentropy`. Probabilities are clipped to [1e-7, 1 - 1e-7].

    Parameters
    ----------
    from_logits, label_smoothing, reduction
        As in Keras.
    axis : int
        -1 only.
    class_weight : mapping of 0 and 1, or pair (negative, positive)
        As in ``fit`` for D = 1; with more outputs each element has its own label's weight.
    precision : "native" or "exact"
        Passed to the spec.

    Raises
    ------
    ValueError
        Another axis than the last, over which no spec averages; a mapping's key other than 0 and 1.

    Notes
    -----
    Source: ``binary_crossentropy`` in keras/src/losses/losses.py and backend/*/nn.py, keras 3.15.1.
    Tested against Keras on the TensorFlow, torch, JAX and NumPy backends.

    Examples
    --------
    >>> binary_crossentropy(from_logits=True, class_weight={1: 5}).class_weight
    (1.0, 5.0)
    """
    if _integer("axis", axis, "be an int") != -1:
        refuse("axis", "be -1: a spec averages outputs over the last axis only", axis)
    if isinstance(class_weight, Mapping):
        unknown = [key for key in class_weight if key not in (0, 1)]
        if unknown:
            refuse("class_weight", "have keys 0 and 1", f"key {unknown[0]!r}")
        class_weight = (class_weight.get(0, 1.0), class_weight.get(1, 1.0))
    return SigmoidCrossEntropy(
        class_weight=class_weight,
        weighting="label",
        label_smoothing=label_smoothing,
        reduction=reduction_of(reduction, REDUCTIONS),
        average_outputs=True,
        inputs="logits" if from_logits else "probs",
        clip=None if from_logits else EPSILON,
        precision=precision,
    )
