"""What a call must refuse, decided apart from the library: which exception, naming which argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from classweight.spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

from .cases import TypedArray
from .floats import FORMATS

Refusal = tuple[str, str]


def refusal(
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    logits: TypedArray,
    targets: TypedArray,
    arguments: Mapping[str, Any],
) -> Refusal | None:
    """Return the exception's class and the argument it names, or None for a valid call."""
    if logits.dtype not in FORMATS:
        return "TypeError", "logits"
    shape = logits.shape
    mask = arguments.get("mask")
    if isinstance(spec, SoftmaxCrossEntropy):
        if not shape:
            return "ValueError", "logits"
        axis = 0 if len(shape) == 1 else spec.axis
        if not -len(shape) <= axis < len(shape):
            return "ValueError", "axis"
        axis %= len(shape)
        if shape[axis] == 0:
            return "ValueError", "logits"
        positions = shape[:axis] + shape[axis + 1 :]
        found = _softmax_targets(spec, targets, shape, positions) or _softmax_weights(spec, shape[axis], arguments)
    else:
        positions = shape[:-1] if spec.average_outputs else shape
        axis = len(shape) - 1
        found = ("ValueError", "targets") if targets.shape != shape else None
    if found:
        return found
    if mask is not None and mask.dtype != "bool":
        return "TypeError", "mask"
    for name in ("sample_weight", "mask"):
        value = arguments.get(name)
        if isinstance(value, TypedArray) and value.shape != positions[: len(value.shape)]:
            return "ValueError", name
    looked_at = arguments.get("validate") is not False
    for name in ("sample_weight", "class_weight") if looked_at else ():
        for value in arguments[name] if isinstance(arguments.get(name), tuple) else [arguments.get(name)]:
            if isinstance(value, TypedArray) and not np.isfinite(value.values).all():
                return "ValueError", name
    denominator = arguments.get("denominator")
    if denominator is not None:
        value = denominator.values if isinstance(denominator, TypedArray) else denominator
        is_seen = looked_at or not isinstance(denominator, TypedArray)
        if not spec.reduction.startswith("mean") or (is_seen and not np.isfinite(value)):
            return "ValueError", "denominator"
    return _values(spec, targets, shape, axis, positions, mask) if looked_at else None


def _softmax_targets(
    spec: SoftmaxCrossEntropy, targets: TypedArray, shape: tuple[int, ...], positions: tuple[int, ...]
) -> Refusal | None:
    if targets.shape == shape:
        return None if spec.ignore_index is None else ("ValueError", "ignore_index")
    if targets.shape != positions:
        return "ValueError", "targets"
    return None if "int" in targets.dtype else ("TypeError", "targets")


def _softmax_weights(spec: SoftmaxCrossEntropy, num_classes: int, arguments: Mapping[str, Any]) -> Refusal | None:
    given = arguments.get("class_weight")
    if given is not None:
        return None if given.shape == (num_classes,) else ("ValueError", "class_weight")
    held = spec.class_weight
    if held is None:
        return None
    if held == () or isinstance(held[0], tuple):
        keys = {key for key, _ in held}
        outside = any(not 0 <= key < num_classes for key in keys)
        absent = len(keys) < num_classes and spec.missing_class_weight == "error"
        return ("ValueError", "class_weight") if outside or absent else None
    return None if len(held) == num_classes else ("ValueError", "class_weight")


def _values(
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    targets: TypedArray,
    shape: tuple[int, ...],
    axis: int,
    positions: tuple[int, ...],
    mask: TypedArray | None,
) -> Refusal | None:
    """Refuse an invalid target unless its position is ignored or masked."""
    indices = targets.shape != shape or (isinstance(spec, SoftmaxCrossEntropy) and len(targets.shape) < len(shape))
    ignored = spec.ignore_index if isinstance(spec, SoftmaxCrossEntropy) else spec.ignore_label
    for index in np.ndindex(targets.shape):
        position = index if targets.shape == positions else (*index[:axis], *index[axis + 1 :])
        value = targets.values[index]
        excused = ignored is not None and value == ignored
        if mask is not None:
            excused = excused or not mask.values[position[: len(mask.shape)]]
        valid = 0 <= value < shape[axis] if indices else 0 <= value < np.inf
        if not (valid or excused):
            return ("IndexError" if indices else "ValueError"), "targets"
    return None
