"""Wrong losses, each with one real-world bug, on top of the NumPy adapter; and what runs them without a process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.conformance.backends import Backend, make_backend

Result = tuple[Any, Any]
Function = Callable[..., Result]


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """A wrong loss, the flags and clauses each of which must catch it, and the backend that it is made of."""

    loss: Function
    caught_by: tuple[str, ...]
    backend: str = "numpy"

    def make(self) -> Backend:
        """Return it as a backend."""
        made = make_backend(self.backend)
        made.glue.loss = self.loss
        return made


MUTANTS: dict[str, Mutant] = {}


def catches(*names: str, backend: str = "numpy", name: str | None = None) -> Callable[[Function], Function]:
    """Register a wrong loss by its name."""

    def register(function: Function) -> Function:
        known = name or function.__name__
        assert known not in MUTANTS
        MUTANTS[known] = Mutant(function, names, backend)
        return function

    return register


def backend(function: Function) -> Backend:
    return Mutant(function, ()).make()


def right(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return cwn.loss_and_grad(spec, logits, targets, **arguments)


def with_spec(spec: Any, **fields: Any) -> Any:
    return dataclasses.replace(spec, **fields)


def is_soft(spec: Any, logits: Any, targets: Any) -> bool:
    return isinstance(spec, SoftmaxCrossEntropy) and np.ndim(targets) == np.ndim(logits)


def typed(logits: Any, loss: Any, gradient: Any) -> Result:
    return np.asarray(loss).astype(logits.dtype), np.asarray(gradient).astype(logits.dtype)


def naive(spec: Any, logits: Any, targets: Any, shift: bool = True) -> Result:
    """Softmax of 2-d logits as it is first written down: lse - z and p - 1, unweighted rows."""
    with np.errstate(all="ignore"):
        z = logits - logits.max(-1, keepdims=True) if shift else logits
        t = targets if np.ndim(targets) == 2 else np.eye(logits.shape[-1])[targets]
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        rows = -(t * np.log(p)).sum(-1)
    return rows, p - t


def naive_where_it_fits(shift: bool) -> Function:
    def function(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
        plain = isinstance(spec, SoftmaxCrossEntropy) and spec.reduction == "none" and not spec.label_smoothing
        if not (plain and logits.ndim == 2 and spec.class_weight is None and spec.inputs == "logits"):
            return right(spec, logits, targets, **arguments)
        loss, gradient = naive(spec, logits, targets, shift)
        return typed(logits, loss, gradient * np.expand_dims(arguments.get("upstream", np.ones_like(loss)), -1))

    return function


catches("ConfidentTarget", name="log_of_softmax_and_p_minus_1")(naive_where_it_fits(shift=True))
catches("CommonOffset", name="softmax_without_the_largest_taken_off")(naive_where_it_fits(shift=False))


@catches("reduction")
def wrong_denominator(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    swapped = {"mean_over_weights": "mean_over_valid", "mean_over_nonzero": "mean_over_positions"}
    return right(with_spec(spec, reduction=swapped.get(spec.reduction, spec.reduction)), logits, targets, **arguments)


@catches("targets", "sigmoid", "inputs")
def wrong_sign(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, -gradient


@catches("class_weight", "call_class_weight")
def dropped_class_weight(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    arguments.pop("class_weight", None)
    return right(with_spec(spec, class_weight=None), logits, targets, **arguments)


@catches("NegativeWeight", "weights_of_either_sign")
def absolute_weights(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if "sample_weight" in arguments:
        arguments["sample_weight"] = np.abs(arguments["sample_weight"])
    return right(spec, logits, targets, **arguments)


@catches("NoProbability")
def moved_into_range(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    within = np.clip(logits, 0, 1) if spec.inputs == "probs" else np.minimum(logits, 0)
    return right(spec, within, targets, **arguments)


@catches("SampleTimesClassWeight")
def sample_weight_wins(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return (dropped_class_weight if "sample_weight" in arguments else right)(spec, logits, targets, **arguments)


@catches("sample_weight", "mask", "ignore_index", "axis", "denominator")
def dropped_arguments(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    kept = {name: value for name, value in arguments.items() if name in ("upstream", "class_weight")}
    fields = {"ignore_index": None, "axis": 1} if isinstance(spec, SoftmaxCrossEntropy) else {}
    return right(with_spec(spec, **fields), logits, targets, **kept)


@catches("label_smoothing")
def smoothing_of_other_classes_only(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """T' = (1 - e) t + e / (C - 1) elsewhere, as some papers have it."""
    axis = 0 if logits.ndim == 1 else spec.axis
    e = spec.label_smoothing * logits.shape[axis] / max(1, logits.shape[axis] - 1)
    return right(with_spec(spec, label_smoothing=min(1.0, e)), logits, targets, **arguments)


@catches("weighting", "SmoothingWithWeights", "WeightedSoftTargets")
def weighted_by_the_label(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    kind = "term" if spec.weighting == "label" else "label"
    return right(with_spec(spec, weighting=kind), logits, targets, **arguments)


@catches("zero_denominator", "AllIgnored", "EmptyBatch", "ZeroWeights")
def nan_for_nothing(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(with_spec(spec, zero_denominator="nan"), logits, targets, **arguments)


@catches("ScaledUpstream")
def ignored_upstream(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    arguments.pop("upstream", None)
    return right(spec, logits, targets, **arguments)


@catches("NonUniformUpstream")
def uniform_upstream(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if np.ndim(arguments.get("upstream")):
        arguments["upstream"] = np.full_like(arguments["upstream"], arguments["upstream"].flat[0])
    return right(spec, logits, targets, **arguments)


@catches("WrappedIndex")
def wrapped_index(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if np.ndim(targets) < logits.ndim and targets.dtype.kind == "i" and spec.ignore_index is None:
        targets = targets % logits.shape[spec.axis]
    return right(spec, logits, targets, **arguments)


@catches("HalfDoubleRounding")
def rounded_twice(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits.astype(np.float64), targets, **arguments)
    return typed(logits, np.float32(loss), np.float32(gradient))


@catches("HalfAccumulation")
def summed_in_half(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    gradient = right(spec, logits, targets, **arguments)[1]
    rows, _ = right(with_spec(spec, reduction="none"), logits, targets)
    with np.errstate(over="ignore"):
        return (rows.sum(dtype=logits.dtype) / rows.size).astype(logits.dtype), gradient


@catches("LabelThroughFloat")
def label_through_bfloat16(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(spec, logits, targets.astype(ml_dtypes.bfloat16).astype(np.int64), **arguments)


@catches("NonNormalisedTargets", "AllZeroTargets")
def gradient_of_normalised_targets(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    if is_soft(spec, logits, targets) and spec.reduction == "none":
        q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        upstream = arguments.get("upstream", np.ones(logits.shape[:-1]))[..., None]
        return loss, (upstream * (q - targets)).astype(logits.dtype)
    return loss, gradient


@catches("OneHotIsIndex")
def distributions_over_positions(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if is_soft(spec, logits, targets) and spec.reduction.startswith("mean"):
        spec = with_spec(spec, reduction="mean_over_positions")
    return right(spec, logits, targets, **arguments)


@catches("IgnoredNaN", "ZeroWeightTimesInf")
def multiplied_by_zero(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    with np.errstate(invalid="ignore"):
        nothing = 0 * logits
        return loss + nothing.sum().astype(logits.dtype), gradient + nothing


@catches("ZeroCoefficientTimesInf")
def all_terms_multiplied(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    with np.errstate(invalid="ignore"):
        return np.asarray(loss + (0 * logits).sum()).astype(logits.dtype), gradient


@catches("InfiniteLogit", "infinite")
def finite_for_everything(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    largest = ml_dtypes.finfo(logits.dtype).max / 4
    clipped = np.nan_to_num(logits.astype(np.float64), nan=0, posinf=largest, neginf=-largest).astype(logits.dtype)
    return right(spec, clipped, targets, **arguments)


@catches("ProbabilityClip")
def never_clipped(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(with_spec(spec, clip=None), logits, targets, **arguments)


@catches("ArgmaxTie")
def last_of_equals(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if not is_soft(spec, logits, targets):
        return right(spec, logits, targets, **arguments)
    weights = spec.class_weight and spec.class_weight[::-1]
    loss, gradient = right(with_spec(spec, class_weight=weights), logits[..., ::-1], targets[..., ::-1], **arguments)
    return loss, gradient[..., ::-1]


@catches("PrefixSampleWeight")
def weighted_time_steps(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    s = arguments.get("sample_weight")
    if np.ndim(s) == 1 and np.ndim(targets) == 2 and targets.shape[0] == targets.shape[1]:
        arguments["sample_weight"] = np.broadcast_to(s, targets.shape)
    return right(spec, logits, targets, **arguments)


@catches("UnbroadcastSum")
def divided_by_the_unbroadcast_sum(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if spec.reduction == "mean_over_weights" and "sample_weight" in arguments:
        arguments["denominator"] = float(np.sum(arguments["sample_weight"]))
    return right(spec, logits, targets, **arguments)


@catches("SplitBatch")
def own_denominator(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    arguments.pop("denominator", None)
    return right(spec, logits, targets, **arguments)


@catches("MissingClass")
def every_missing_class_weighs_1(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(with_spec(spec, missing_class_weight=1.0), logits, targets, **arguments)


@catches("BatchOfOne")
def weight_that_never_cancels(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    fields = {"reduction": "mean_over_positions"} if spec.reduction.startswith("mean") else {}
    return right(with_spec(spec, **fields), logits, targets, **arguments)


@catches("IgnoredWeight")
def ignored_rows_weigh(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if isinstance(spec, SoftmaxCrossEntropy) and "sample_weight" in arguments:
        arguments["denominator"] = float(np.sum(arguments["sample_weight"]))
    elif isinstance(spec, SigmoidCrossEntropy):
        arguments["denominator"] = float(len(targets))
    return right(spec, logits, targets, **arguments)


@catches("SmoothingAxis")
def smoothed_by_the_last_axis(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    e = spec.label_smoothing
    hot = np.moveaxis(np.eye(logits.shape[1])[targets], -1, 1)
    smoothed = (1 - e) * hot + e / logits.shape[-1]
    return right(with_spec(spec, label_smoothing=0.0), logits, smoothed.astype(logits.dtype), **arguments)


@catches("SpatialMean")
def divided_by_the_batch(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    fields = {"reduction": "mean_over_batch"} if spec.reduction.startswith("mean") else {}
    return right(with_spec(spec, **fields), logits, targets, **arguments)


@catches("Subnormal")
def tiny_numbers_doubled(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, np.where(np.abs(gradient) < 1e-3, 2 * gradient, gradient).astype(logits.dtype)


@catches("numbers")
def nothing_for_little(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, np.where(np.abs(gradient.astype(np.float64)) < 1e-6, 0, gradient).astype(logits.dtype)


@catches("zero_coefficients")
def dead_rows_count(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if "sample_weight" in arguments:
        arguments["sample_weight"] = np.maximum(arguments["sample_weight"], 1e-3)
    return right(spec, logits, targets, **arguments)


@catches("average_outputs")
def summed_outputs(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return typed(logits, loss * logits.shape[-1], gradient * logits.shape[-1])


@catches("published")
def natural_to_binary_logarithm(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return typed(logits, loss / np.log(2), gradient / np.log(2))
