"""Wrong losses whose weights, targets or denominators are another convention's, or nobody's."""

from __future__ import annotations

from typing import Any

import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

from .mutants import Function, Result, catches, dropped_class_weight, is_soft, right, typed, with_spec


def is_hard(spec: Any, logits: Any, targets: Any) -> bool:
    return isinstance(spec, SoftmaxCrossEntropy) and np.ndim(targets) < np.ndim(logits)


def mean_as(**swapped: str) -> Function:
    def function(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
        reduction = swapped.get(spec.reduction, spec.reduction)
        if reduction == "sum" or spec.reduction == "sum":
            arguments.pop("denominator", None)
        return right(with_spec(spec, reduction=reduction), logits, targets, **arguments)

    return function


# Keras 3 with ignore_class and sample weights, torch's soft targets, Paddle's -100, TensorFlow 1's default, Chainer.
catches("reduction", name="mean_by_valid_is_by_weights")(mean_as(mean_over_valid="mean_over_weights"))
catches("reduction", name="mean_by_weights_is_by_positions")(mean_as(mean_over_weights="mean_over_positions"))
catches("reduction", "ignore_index", name="mean_by_valid_is_by_positions")(
    mean_as(mean_over_valid="mean_over_positions")
)
catches("reduction", "mask", name="mean_by_positions_is_by_valid")(mean_as(mean_over_positions="mean_over_valid"))
catches("reduction", name="mean_by_batch_is_by_positions")(mean_as(mean_over_batch="mean_over_positions"))
catches("reduction", name="mean_by_weights_is_by_nonzero")(mean_as(mean_over_weights="mean_over_nonzero"))
catches("reduction", name="a_sum_is_a_mean")(mean_as(sum="mean_over_valid"))
catches("reduction", name="a_mean_is_a_sum")(mean_as(mean_over_positions="sum"))


@catches("denominator")
def denominator_of_at_least_1(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Clamp it, so that nothing is divided by 0."""
    if arguments.get("denominator") is not None:
        arguments["denominator"] = max(1.0, float(arguments["denominator"]))
    return right(spec, logits, targets, **arguments)


@catches("denominator")
def denominator_with_an_epsilon(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if arguments.get("denominator") is not None:
        arguments["denominator"] = float(arguments["denominator"]) + 1e-6
    return right(spec, logits, targets, **arguments)


@catches("ElementWeights")
def every_row_has_the_first_ones_weights(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Take weights of elements for weights of outputs: what reads (N, C) with the row's stride left out."""
    pair = arguments.get("class_weight")
    if isinstance(pair, tuple):
        arguments["class_weight"] = tuple(w if np.ndim(w) < 2 else w[:1] for w in pair)
    return right(spec, logits, targets, **arguments)


@catches("ElementWeights")
def weights_of_elements_are_averaged_over_rows(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Take one weight an output, as `pos_weight` has."""
    pair = arguments.get("class_weight")
    if isinstance(pair, tuple):
        arguments["class_weight"] = tuple(w if np.ndim(w) < 2 else w.mean(0, dtype=np.float64) for w in pair)
    return right(spec, logits, targets, **arguments)


@catches("targets", "class_weight")
def class_0_is_padding(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Ignore class 0 unasked, as losses of sequences do whose padding is 0."""
    if is_hard(spec, logits, targets) and spec.ignore_index is None:
        spec = with_spec(spec, ignore_index=0)
    return right(spec, logits, targets, **arguments)


@catches("WrappedIndex")
def minus_1_is_ignored(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Ignore it unasked: Chainer."""
    if is_hard(spec, logits, targets) and spec.ignore_index is None:
        spec = with_spec(spec, ignore_index=-1)
    return right(spec, logits, targets, **arguments)


@catches("WrappedIndex")
def clipped_index(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Take the nearest class: Chainer's double path."""
    if is_hard(spec, logits, targets) and spec.ignore_index is None:
        axis = 0 if logits.ndim == 1 else spec.axis
        targets = np.clip(targets, 0, logits.shape[axis] - 1)
    return right(spec, logits, targets, **arguments)


@catches("LabelThroughFloat")
def label_through_float16(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(spec, logits, targets.astype(np.float16).astype(np.int64), **arguments)


@catches("WeightedSoftTargets")
def weights_dropped_for_soft_targets(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Chainer."""
    soft = np.ndim(targets) == np.ndim(logits)
    return (dropped_class_weight if soft else right)(spec, logits, targets, **arguments)


@catches("SmoothingWithWeights")
def weights_dropped_under_smoothing(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return (dropped_class_weight if spec.label_smoothing else right)(spec, logits, targets, **arguments)


@catches("SmoothingWithWeights", "weighting")
def weighted_outside_the_sum(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Paddle, and the U-Net recipe."""
    if isinstance(spec, SoftmaxCrossEntropy):
        spec = with_spec(spec, weighting="term" if spec.weighting == "expected" else "expected")
    elif spec.label_smoothing:
        spec = with_spec(spec, weighting="term" if spec.weighting == "label" else "label")
    return right(spec, logits, targets, **arguments)


@catches("label_smoothing", "sigmoid")
def smoothing_dropped(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(with_spec(spec, label_smoothing=0.0), logits, targets, **arguments)


@catches("sigmoid")
def binary_smoothing_towards_1(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """T' = (1 - e) t + e, as if of one class."""
    if isinstance(spec, SigmoidCrossEntropy) and spec.label_smoothing and spec.ignore_label is None:
        e = spec.label_smoothing
        spec, targets = with_spec(spec, label_smoothing=0.0), (1 - e) * np.asarray(targets, np.float64) + e
    return right(spec, logits, targets, **arguments)


@catches("sigmoid", "average_outputs")
def positive_and_negative_exchanged(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if isinstance(spec, SigmoidCrossEntropy) and spec.class_weight is not None:
        spec = with_spec(spec, class_weight=spec.class_weight[::-1])
    return right(spec, logits, targets, **arguments)


@catches("IntegerWeights")
def class_weights_in_the_type_of_sample_weights(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """tf_keras."""
    s = arguments.get("sample_weight")
    if s is not None and np.asarray(s).dtype.kind == "i" and spec.class_weight is not None:
        spec = with_spec(spec, class_weight=np.trunc(spec.class_weight))
    return right(spec, logits, targets, **arguments)


@catches("SampleTimesClassWeight")
def class_weights_win(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Override instead of multiply."""
    if spec.class_weight is not None:
        arguments.pop("sample_weight", None)
    return right(spec, logits, targets, **arguments)


@catches("sample_weight")
def sample_weights_dropped_for_soft_targets(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if is_soft(spec, logits, targets):
        arguments.pop("sample_weight", None)
    return right(spec, logits, targets, **arguments)


@catches("sample_weight")
def weighted_twice(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Once by the sampler and once by the loss."""
    if "sample_weight" in arguments:
        arguments["sample_weight"] = np.asarray(arguments["sample_weight"]) ** 2
    return right(spec, logits, targets, **arguments)


@catches("sample_weight")
def sample_weights_of_mean_1(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Normalise them, unasked, to a mean of 1."""
    s = arguments.get("sample_weight")
    if s is not None and np.isfinite(s).all() and np.sum(s) != 0:
        arguments["sample_weight"] = s / np.mean(s)
    return right(spec, logits, targets, **arguments)


@catches("NegativeWeight")
def negative_weights_are_0(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if "sample_weight" in arguments:
        arguments["sample_weight"] = np.maximum(arguments["sample_weight"], 0)
    return right(spec, logits, targets, **arguments)


@catches("NegativeWeight")
def coefficients_that_cancel_are_none(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Take a row whose coefficients add up to 0 for a row of zeros."""
    loss, gradient = right(spec, logits, targets, **arguments)
    w = spec.class_weight
    if is_soft(spec, logits, targets) and w is not None and spec.reduction == "none" and logits.ndim == 2:
        gone = (targets * np.asarray(w)).sum(-1) == 0
        return typed(logits, np.where(gone, 0, loss), np.where(gone[:, None], 0, gradient))
    return loss, gradient


@catches("mask")
def mask_inverted(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Mask what is to be kept: True means «ignore» in some libraries."""
    if "mask" in arguments:
        arguments["mask"] = ~np.asarray(arguments["mask"])
    return right(spec, logits, targets, **arguments)


@catches("IgnoredNaN")
def mask_times_loss(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Multiply by the mask: 0 times NaN is NaN."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if "mask" in arguments:
        with np.errstate(invalid="ignore"):
            gradient = gradient + 0 * logits
    return loss, gradient


@catches("MissingClass")
def missing_classes_weigh_0(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if getattr(spec, "missing_class_weight", "error") != "error":
        spec = with_spec(spec, missing_class_weight=0.0)
    return right(spec, logits, targets, **arguments)


@catches("EmptyBatch")
def nothing_is_not_reduced(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Return shape (0,): Keras 3."""
    loss, gradient = right(spec, logits, targets, **arguments)
    return (loss if logits.size else np.zeros(0, logits.dtype)), gradient


@catches("ZeroWeights")
def gradient_over_0(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Divide the gradient by the weights that are all 0, too: torch."""
    loss, gradient = right(spec, logits, targets, **arguments)
    s = arguments.get("sample_weight")
    if s is not None and spec.reduction == "mean_over_weights" and not np.any(s):
        gradient = np.full_like(gradient, np.nan)
    return loss, gradient


@catches("AllZeroTargets")
def a_row_of_zeros_has_a_gradient(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Return softmax(z) for it: TensorFlow."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if is_soft(spec, logits, targets) and logits.ndim == 2:
        e = np.exp(logits - logits.max(-1, keepdims=True))
        zero = ~np.any(targets, -1, keepdims=True)
        gradient = np.where(zero, e / e.sum(-1, keepdims=True), gradient).astype(logits.dtype)
    return loss, gradient
