"""Class weights carried to samples: for losses that take sample weights, for metrics, and for samplers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..call import _check_weights, _refuse_first
from ..errors import calling, refuse
from ..spec import SoftmaxCrossEntropy, _choice
from . import labels as _labels
from .schemes import ClassWeights, class_weights

__all__ = ["correct_for_sampling", "sample_weights", "sampler_weights"]

Vector = npt.NDArray[np.float64]


def sample_weights(
    targets: Any,
    class_weight: Any,
    sample_weight: Any = None,
    *,
    mask: Any = None,
    ignore_index: int | None = None,
    missing_class_weight: float | Literal["error"] = "error",
    weighting: Literal["label", "expected"] = "label",
    combine: Literal["product", "sum"] | None = None,
    one_hot: bool | None = None,
    axis: int = -1,
) -> Any:
    """Return what each position weighs: its class weight times its sample weight, the product that Keras 2 made.

    It serves wherever sample weights are taken and class weights are not: ``fit(sample_weight=...)`` of Keras 3, which
    refuses both together, with temporal targets or several outputs, and scikit-learn's metrics.

    Parameters
    ----------
    targets : array-like, or tensor of any framework
        Labels as in `ClassCounts.update`: class indices or names in any shape, or distributions along ``axis``. A
        mapping, or a list, of arrays has one output each.
    class_weight : None, array-like of shape (C,), ClassWeights, mapping class -> weight, or a scheme
        Finite, of either sign; None is 1. The name of a scheme stands for `class_weights` of these targets, with each
        label counted once. For several outputs one of these each, in a container like the targets'; None and a scheme
        may stand for all.
    sample_weight : array-like, optional
        Finite, of either sign; a scalar or of a shape that is a prefix of the position shape, spread over the rest.
        For several outputs one for all, or one each.
    mask : array-like of bool, optional
        False where a position, such as padding, weighs 0; a prefix of the position shape. For several outputs one for
        all, or one each.
    ignore_index : int, optional
        Class indices equal to it weigh 0.
    missing_class_weight : "error" or float
        What a class absent from a mapping weighs (Keras 3 and scikit-learn: 1.0).
    weighting : "label" or "expected"
        A distribution weighs as the class of its first largest entry, as in Keras, or as sum_c w_c t_c.
    combine : None, "product" or "sum"
        Of several outputs: the weights of each; or one array, as scikit-learn multiplies them. Weights and masks that
        are for all outputs then enter once.
    one_hot, axis
        Whether, and where, the targets are distributions, as in `ClassCounts.update`.

    Returns
    -------
    ndarray of float64, of the position shape
        For several outputs that are not combined, one of each, in a dict or a list as the targets were.

    Raises
    ------
    ValueError
        A class without a weight, or out of range (an IndexError too); weights that are not finite; shapes that do not
        fit; outputs without class weights of their own.
    TypeError
        Targets that are neither numbers nor names, names with weights that have none.

    Examples
    --------
    >>> sample_weights([[0, 2, 1], [2, -1, -1]], [1, 2, 5], [1, 0.5], ignore_index=-1)
    array([[1. , 5. , 2. ],
           [2.5, 0. , 0. ]])
    >>> sample_weights(["cat", "dog", "cat"], {"dog": 3}, missing_class_weight=1)
    array([1., 3., 1.])
    """
    _choice("weighting", weighting, ("label", "expected"))
    _choice("combine", combine, (None, "product", "sum"))
    weigh = functools.partial(
        _weigh,
        ignore_index=ignore_index,
        missing=missing_class_weight,
        weighting=weighting,
        one_hot=one_hot,
        axis=axis,
    )
    outputs = _labels.outputs_of(targets)
    if outputs is None:
        if combine is not None:
            refuse("combine", "be None for a single output", repr(combine))
        return weigh(targets, class_weight, sample_weight, mask)
    keys = list(outputs) if isinstance(outputs, dict) else range(len(outputs))
    weights = _for_each("class_weight", class_weight, outputs)
    if weights is None and not (class_weight is None or isinstance(class_weight, str)):
        refuse("class_weight", f"be one for each of the outputs {list(keys)}", type(class_weight).__name__)
    own_weight, own_mask = _for_each("sample_weight", sample_weight, outputs), _for_each("mask", mask, outputs)

    def of(key: Any, output: Any) -> Vector:
        shared = sample_weight if own_weight is None and combine is None else None
        return weigh(
            output,
            class_weight if weights is None else weights[key],
            shared if own_weight is None else own_weight[key],
            mask if own_mask is None else own_mask[key],
        )

    result = _labels.each_output(outputs, of)
    if combine is None:
        return result
    each = [result[key] for key in keys]
    shapes = [weight.shape for weight in each]
    if len(set(shapes)) > 1:
        refuse("combine", "be None for outputs of different shapes", shapes)
    total = functools.reduce(np.multiply if combine == "product" else np.add, each)
    if sample_weight is not None and own_weight is None:
        positions = _labels.Labels(total, None)
        total = total * positions.spread(positions.sample_weight(sample_weight))
    return total


@calling(targets="labels")
def sampler_weights(
    labels: Any,
    class_weight: Any = "balanced",
    sample_weight: Any = None,
    *,
    positions: Literal["mean", "max", "sum"] | None = None,
    mask: Any = None,
    ignore_index: int | None = None,
    missing_class_weight: float | Literal["error"] = "error",
    weighting: Literal["label", "expected"] = "label",
    one_hot: bool | None = None,
    axis: int = -1,
) -> Vector:
    """Return how often each sample is to be drawn, relative to the others: for ``WeightedRandomSampler``.

    With "balanced", the default, every class is drawn as often as any other. With a weighted loss beside it the
    weights count twice: see `correct_for_sampling`.

    Parameters
    ----------
    labels : array-like, or tensor of any framework
        Of N samples along the first axis, as in `sample_weights`.
    positions : "mean", "max" or "sum"
        How the weights of the positions of one sample, the pixels of an image, become its own; required where there
        are any. The mean is over those that are neither ignored nor masked; a sample without any is never drawn.
    class_weight, sample_weight, mask, ignore_index, missing_class_weight, weighting, one_hot, axis
        As in `sample_weights`, of a single output.

    Returns
    -------
    ndarray of float64, of shape (N,)

    Raises
    ------
    ValueError, TypeError
        What `sample_weights` refuses; samples with several positions without ``positions``; weights that are all 0, or
        one that is negative, for nothing is drawn less than never.

    Examples
    --------
    >>> sampler_weights([0, 0, 0, 1])
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    _choice("positions", positions, (None, "mean", "max", "sum"))
    options: dict[str, Any] = {"mask": mask, "ignore_index": ignore_index, "one_hot": one_hot, "axis": axis}
    rules: dict[str, Any] = {"missing_class_weight": missing_class_weight, "weighting": weighting}
    weights = sample_weights(labels, class_weight, sample_weight, **rules, **options)
    if not isinstance(weights, np.ndarray) or not weights.ndim:
        refuse("labels", "be those of N samples of a single output", type(labels).__name__)
    _refuse_first("labels", "give each position a weight >= 0", weights, weights < 0, ValueError)
    if weights.ndim > 1:
        if positions is None:
            refuse("positions", "be 'mean', 'max' or 'sum' for samples with several positions", "None")
        rows = weights.reshape(len(weights), -1)
        weights = rows.max(1, initial=0) if positions == "max" else rows.sum(1)
        if positions == "mean":
            kept = sample_weights(labels, None, **options).reshape(rows.shape).sum(1)
            weights = np.divide(weights, kept, out=np.zeros_like(weights), where=kept > 0)
    if not weights.any():
        refuse("labels", "give some sample a weight > 0", "none")
    return np.asarray(weights)


def correct_for_sampling(class_weight: Any, sampling_rate: Any) -> Vector:
    """Return the class weights that mean, under a sampler, what these mean without: w_c / r_c.

    A sampler that draws class c r_c times as often as it occurs multiplies its weight in the objective by r_c, so that
    a sampler and a weighted loss together count twice.

    Parameters
    ----------
    class_weight : None, array-like of shape (C,), ClassWeights, or mapping class -> weight
        The weights of the intended objective, without a sampler; None is 1 each.
    sampling_rate : array-like of shape (C,), or ClassWeights
        r_c: class c's share of what is drawn, divided by its share of the data. `ClassWeights` are those that
        `sampler_weights` had, whose scale, which a sampler does not see, is taken out.

    Returns
    -------
    ndarray of float64, of shape (C,)

    Raises
    ------
    ValueError
        Rates that are negative, weights or rates that are not finite, or not of one length; a class that weighs and is
        never drawn.

    Examples
    --------
    Three quarters of the data are of class 0, and a sampler draws both classes equally often:

    >>> correct_for_sampling(None, [0.5 / 0.75, 0.5 / 0.25])
    array([1.5, 0.5])
    """
    rate = _labels.to_host(sampling_rate, "sampling_rate")
    if rate.ndim != 1 or rate.dtype.kind not in "iuf":
        refuse("sampling_rate", "be numbers of shape (C,), one per class", f"{rate.dtype} of shape {rate.shape}")
    _check_weights("sampling_rate", rate)
    if isinstance(sampling_rate, ClassWeights):
        rate = rate / np.sum(rate * sampling_rate.share)
    weights = SoftmaxCrossEntropy(class_weight=class_weight).class_weight_values(len(rate))
    weight = np.ones(len(rate)) if weights is None else np.array(weights)
    never = np.flatnonzero((rate == 0) & (weight != 0))
    if never.size:
        refuse("sampling_rate", "be > 0 for each class with a weight", f"0 for class {never[0]}")
    return np.divide(weight, rate, out=np.zeros(len(rate)), where=rate > 0)


def _for_each(name: str, x: Any, outputs: dict[Any, Any] | list[Any]) -> Any:
    """Return the container with one ``x`` an output, None where there is one for all."""
    if isinstance(outputs, dict) and isinstance(x, Mapping):
        if x.keys() != outputs.keys():
            refuse(name, f"have the outputs {list(outputs)}", list(x))
        return x
    if isinstance(outputs, list) and isinstance(x, list | tuple) and any(_is_container(item) for item in x):
        if len(x) != len(outputs):
            refuse(name, f"be one for each of {len(outputs)} outputs", f"{len(x)}")
        return x
    return None


def _is_container(item: Any) -> bool:
    return isinstance(item, Mapping | list | tuple | ClassWeights) or len(getattr(item, "shape", ())) > 0


def _weigh(
    targets: Any,
    class_weight: Any,
    sample_weight: Any,
    mask: Any,
    *,
    ignore_index: int | None,
    missing: float | Literal["error"],
    weighting: str,
    one_hot: bool | None,
    axis: int,
) -> Vector:
    """Return the weights of one output's positions."""
    reading: dict[str, Any] = {"mask": mask, "ignore_index": ignore_index, "one_hot": one_hot, "axis": axis}
    labels = _labels.read(targets, "targets", **reading)
    if isinstance(class_weight, str):
        class_weight = _by_scheme(targets, class_weight, zero_count="zero", **reading)
    if class_weight is None:
        weights: Vector = np.ones(labels.shape)
    elif labels.axis is not None:
        weights = _of_distributions(labels, class_weight, missing, weighting)
    else:
        weights = _of_labels(labels, class_weight, missing)
    if labels.kept is not None:
        weights = np.where(labels.kept, weights, 0.0)
    if sample_weight is not None:
        given = labels.sample_weight(sample_weight)
        weights = weights * given.reshape(given.shape + (1,) * (weights.ndim - given.ndim))
    return weights


_by_scheme: Any = calling(labels="targets", scheme="class_weight")(class_weights)


def _of_distributions(labels: _labels.Labels, class_weight: Any, missing: Any, weighting: str) -> Vector:
    spec = SoftmaxCrossEntropy(class_weight=class_weight, missing_class_weight=missing)
    table = np.array(spec.class_weight_values(labels.num_classes or 0))
    return np.asarray(table[labels.largest()]) if weighting == "label" else labels.expected(table)


def _of_labels(labels: _labels.Labels, class_weight: Any, missing: Any) -> Vector:
    names = labels.names
    if names is not None:
        if isinstance(class_weight, ClassWeights) and class_weight.class_names is not None:
            class_weight = class_weight.as_dict(names=True)
        if not isinstance(class_weight, Mapping):
            expected = "be a mapping, or ClassWeights with class names, for targets that are names"
            refuse("class_weight", expected, type(class_weight).__name__, error=TypeError)
        class_weight = {i: class_weight[name] for i, name in enumerate(names) if name in class_weight}
    spec = SoftmaxCrossEntropy(class_weight=class_weight, missing_class_weight=missing)
    if not spec.has_weight_mapping:
        table = np.array(spec.class_weight)
        labels.check_range("targets", len(table))
        index = labels.values if labels.keep is None else np.where(labels.keep, labels.values, 0)
        return np.asarray(table[index])
    keys = np.array([key for key, _ in spec.class_weight], np.int64)
    # One more entry, for what lies beyond every key.
    table = np.array([*(weight for _, weight in spec.class_weight), np.nan])
    index = np.searchsorted(keys, labels.values)
    absent = np.append(keys, 0)[index] != labels.values
    absent |= index == len(keys)
    if missing == "error":
        unnamed = labels.values[absent if labels.keep is None else absent & labels.keep]
        if unnamed.size:
            first = unnamed[0] if names is None else repr(names[unnamed[0]])
            expected = "name each class in the targets, or missing_class_weight be a number"
            refuse("class_weight", expected, f"no weight for class {first}")
        missing = 0.0
    return np.where(absent, missing, table[index])
