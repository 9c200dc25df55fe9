"""The fused loss on a GPU, in Triton: a pass over the logits for the loss and, in the backward, one for the gradient.

What is upstream is part of the gradient's one rounding, and between the passes nothing of the logits' size is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...call import Call
from ...errors import refuse
from ...lowering import SigmoidCoefficients, SoftmaxCoefficients, divided, inside_of, lower, reduce, unless_empty
from ...spec import SoftmaxCrossEntropy
from . import triton_launch
from .arrays import NOT_INPLACE, composite_gradient, is_once, round_once, xp

is_usable = triton_launch.is_usable


class FusedOnDevice(torch.autograd.Function):
    """The loss of one call, its gradient made in the backward from the logits and a few numbers a row.

    A backward that is itself differentiated or batched goes through the composite.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, call: Call, dtype: torch.dtype, inplace: bool) -> Tensor:
        value, c, statistics = evaluate(call, dtype)
        if ctx.needs_input_grad[0]:
            # What autograd saves it also lets go; nothing else may hold the batch.
            saved = [z, *statistics]
            ctx.call = _apart(dataclasses.replace(call, logits=None), saved)
            # Coefficients of the logits' size are lowered again.
            ctx.c = _apart(c, saved) if call.hard else None
            ctx.save_for_backward(*saved)
            ctx.count, ctx.inplace, ctx.spent = len(statistics), inplace, False
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        once = is_once(upstream)
        if ctx.inplace and (ctx.spent or not once):
            refuse("inplace", NOT_INPLACE, True, error=RuntimeError)
        z, *tensors = ctx.saved_tensors  # raises if one of them was changed in place since
        statistics, rest = tuple(tensors[: ctx.count]), iter(tensors[ctx.count :])
        call = dataclasses.replace(_together(ctx.call, rest), logits=z)
        if not once:
            return composite_gradient(call, upstream), None, None, None
        out = z.detach() if ctx.inplace else None
        c = None if ctx.c is None else _together(ctx.c, rest)
        found = gradient(call, statistics, upstream, c, out)
        if ctx.inplace:
            ctx.spent = True
            torch.autograd.graph.increment_version(z)
        return found, None, None, None


def evaluate(call: Call, dtype: torch.dtype) -> tuple[Tensor, Any, tuple[Tensor, ...]]:
    """Return the loss in ``dtype``, the coefficients, and the numbers of which `gradient` makes the gradient."""
    inside, each = inside_of(xp, call.spec, call.logits.dtype), call.spec.reduction == "none"
    undivided = lower(xp, call, inside)
    c, denominator = divided(xp, undivided), undivided.denominator
    rows, statistics = triton_launch.losses(call.logits, c, inside, each)
    if each and isinstance(c, SigmoidCoefficients) and call.spec.average_outputs:
        rows = rows.sum(-1, keepdim=True)
    value = reduce(xp, call, rows, None)
    if denominator is not None and not each:
        value = unless_empty(xp, call.spec.zero_denominator, value / c.denominator, denominator)
    return round_once(value, dtype), c, statistics


def gradient(
    call: Call, statistics: tuple[Tensor, ...], upstream: Tensor, c: Any = None, out: Tensor | None = None
) -> Tensor:
    """Return the gradient times ``upstream``, written to ``out``; coefficients not given are lowered again."""
    inside = inside_of(xp, call.spec, call.logits.dtype)
    c = divided(xp, lower(xp, call, inside)) if c is None else c
    upstream = upstream.to(torch.float64)
    if c.denominator is not None:
        upstream = upstream / c.denominator
    if call.spec.reduction == "none" and call.position_axis is not None:
        upstream = upstream.unsqueeze(call.position_axis)
    return triton_launch.gradient(call.logits.detach(), c, inside, statistics, upstream, out)


def of_chunk(call: Call, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the wide loss; with a factor the logits become their gradient times it, which is returned, too."""
    value, c, statistics = evaluate(call, torch.float64)
    return value, None if factor is None else gradient(call, statistics, factor, c, call.logits)


def statistics_like(call: Call) -> list[Tensor]:
    """Return tensors of the shapes and types of what `evaluate` returns last."""
    z, count = call.logits, math.prod(call.loss_shape(xp))
    if not isinstance(call.spec, SoftmaxCrossEntropy) or not z.numel():
        return []
    inside, hard = inside_of(xp, call.spec, z.dtype), call.hard and not call.spec.label_smoothing
    types = [inside] * 3 if hard else [*[inside] * 4, torch.int32]
    return [z.new_empty(count, dtype=dtype) for dtype in types]


def _apart(x: Call | SoftmaxCoefficients | SigmoidCoefficients, tensors: list[Tensor]) -> tuple[type, dict[str, Any]]:
    """Return a record without its tensors, which are appended to ``tensors``."""

    def taken(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(taken, value))
        if not isinstance(value, Tensor):
            return value
        tensors.append(value)
        return Tensor

    return type(x), {name: taken(getattr(x, name)) for name in x.__slots__}


def _together(parts: tuple[type, dict[str, Any]], tensors: Iterator[Tensor]) -> Any:
    """Return the record that `_apart` was given."""

    def put(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(put, value))
        return next(tensors) if value is Tensor else value

    kind, fields = parts
    return kind(**{name: put(value) for name, value in fields.items()})
